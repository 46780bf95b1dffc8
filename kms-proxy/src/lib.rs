//! AWS KMS for a program in an enclave: what an unmodified AWS SDK needs to get plaintext that only
//! this enclave could decrypt.
//!
//! | module | what |
//! |---|---|
//! | [`envelope`] | `CiphertextForRecipient`: what KMS answers to an enclave, and its decryption |
//! | [`attest`] | attestation documents: the Nitro Secure Module, a simulated one, verification |
//! | [`sign`] | AWS Signature Version 4: the program's is checked, ours is made |
//! | [`credentials`] | those of the instance, fed by the host half, refreshed before they expire |
//! | [`proxy`] | HTTP/1.1 for the SDK on one side, HTTPS to KMS on the other |
//!
//! Without the feature `proxy` the first two remain, for `policyctl attest verify`.

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
