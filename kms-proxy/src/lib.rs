//! AWS KMS for an app in an enclave.
//!
//! An unmodified AWS SDK gets plaintext that only this enclave can decrypt.
//!
//! | module | content |
//! |---|---|
//! | [`envelope`] | `CiphertextForRecipient`, the answer of KMS to an enclave, and its decryption |
//! | [`attest`] | attestation documents: the Nitro Secure Module, a simulated one, verification |
//! | [`sign`] | AWS Signature Version 4: checks the app's, makes the proxy's |
//! | [`credentials`] | the instance's credentials from the host, refreshed before they expire |
//! | [`proxy`] | HTTP/1.1 for the SDK on one side, HTTPS to KMS on the other |
//!
//! Without the feature `proxy`, only the first two exist, for `policyctl attest verify`.

#![forbid(unsafe_code)]

pub mod attest;
#[cfg(feature = "proxy")]
pub mod credentials;
pub mod envelope;
mod error;
#[cfg(feature = "proxy")]
pub mod proxy;
mod secret;
#[cfg(feature = "proxy")]
pub mod sign;

pub use error::{DocumentFault, Error};
pub use secret::Secret;
