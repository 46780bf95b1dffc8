//! Attestation documents: statements of the Nitro Secure Module (NSM) about what runs in an enclave.
//!
//! A document is a COSE_Sign1 message (RFC 9052 section 4.2), signed with ES384 by a certificate that
//! leads to the AWS Nitro root. It is [asked for](Module), [read and verified](verify), and there is
//! a [simulated](Simulated) module for machines without one, whose documents lead to another root.

mod cbor;
#[cfg(feature = "device")]
mod device;
mod document;
#[cfg(feature = "device")]
mod simulated;
#[cfg(test)]
mod tests;
mod verify;

#[cfg(feature = "device")]
pub use device::Device;
pub use document::Document;
#[cfg(feature = "device")]
pub use simulated::Simulated;
pub use verify::{Expected, verify};

use crate::Error;

/// The root of AWS Nitro Enclaves, "G1", valid until 2049: SHA-256
/// 641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b.
pub const AWS_NITRO_ROOT: &[u8] = include_bytes!("aws-nitro-root-g1.der");
/// The root of simulated documents. Its private key stands beside it in the source: whoever trusts
/// this root believes anybody.
pub const SIMULATED_ROOT: &[u8] = include_bytes!("simulated-root.der");
/// What the names of simulated modules begin with.
pub const SIMULATED_PREFIX: &str = "SIMULATED-";

/// Longest document, in bytes: what the module can answer.
pub const MAX_DOCUMENT: usize = 12 * 1024;
/// Most bytes of `public_key` in a document; at least 1.
pub const MAX_PUBLIC_KEY: usize = 1024;
/// Most bytes of `user_data` and of `nonce`.
pub const MAX_DATA: usize = 512;

/// What a document shall say beside the measurements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// A public key, usually as SubjectPublicKeyInfo.
    pub public_key: Option<Vec<u8>>,
    /// Anything.
    pub user_data: Option<Vec<u8>>,
    /// What shows that the document is fresh.
    pub nonce: Option<Vec<u8>>,
}

impl Claims {
    /// Whether it fits into a document.
    ///
    /// # Errors
    /// [`Error::Limit`] names what does not, and the limit.
    pub fn check(&self) -> Result<(), Error> {
        let fields = [
            ("public_key", &self.public_key, 1, MAX_PUBLIC_KEY),
            ("user_data", &self.user_data, 0, MAX_DATA),
            ("nonce", &self.nonce, 0, MAX_DATA),
        ];
        for (field, bytes, min, max) in fields {
            let length = bytes.as_ref().map_or(min, Vec::len);
            if !(min..=max).contains(&length) {
                return Err(Error::Limit {
                    field,
                    length,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }
}

/// Makes attestation documents.
pub trait Module: Send + Sync {
    /// Has a document made. It may block for some milliseconds.
    ///
    /// # Errors
    /// [`Error::Limit`] for claims that do not fit, [`Error::Module`] when the module refuses.
    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, Error>;
}
