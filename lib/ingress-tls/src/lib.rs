//! TLS for the clients of an app: the policy's settings as a rustls configuration.
//!
//! The caller reads the files: `odyn-net` in the guest, `policyctl` below a directory. Both get the
//! same [`Fault`]s, each with the place in the policy that names the file.

#![forbid(unsafe_code)]

mod certificate;
mod choose;
mod config;
mod fault;

pub use certificate::Certificate;
pub use config::{MAX_FILE, load};
pub use fault::{Fault, FaultReason};
