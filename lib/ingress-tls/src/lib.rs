//! TLS for the clients of a program: what the policy asks for, made into a rustls configuration.
//!
//! Files are read by whoever uses this: `odyn-net` in the guest, `policyctl` below some directory.
//! Both find the same [`Fault`]s, each with the place in the policy that names the file.

#![forbid(unsafe_code)]

mod certificate;
mod choose;
mod config;
mod fault;

pub use certificate::Certificate;
pub use config::{MAX_FILE, load};
pub use fault::{Fault, FaultReason};
