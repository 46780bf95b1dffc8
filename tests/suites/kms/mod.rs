//! KMS for apps in an enclave: the proxy alone, and all of it in a guest.

mod in_guest;
mod proxy;
