//! Attestation documents: statements of the Nitro Secure Module (NSM) about an enclave.
//!
//! A document is a COSE_Sign1 message (RFC 9052 section 4.2), signed with ES384 by a certificate
//! that leads to the AWS Nitro root. A [`Module`] makes one, and [`verify()`] reads and verifies it.
//! The [`Simulated`] module is for machines without an NSM; its documents lead to another root.

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
pub use device::NsmDevice;
pub use document::Document;
#[cfg(feature = "device")]
pub use simulated::Simulated;
pub use verify::{Expected, verify};

use crate::Error;

/// The root of AWS Nitro Enclaves, "G1", valid until 2049: SHA-256
/// 641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b.
pub const AWS_NITRO_ROOT: &[u8] = include_bytes!("aws-nitro-root-g1.der");
/// The root of simulated documents.
///
/// Its private key is in the source beside it, so anyone can make a document for this root.
pub const SIMULATED_ROOT: &[u8] = include_bytes!("simulated-root.der");
/// Start of the names of simulated modules.
pub const SIMULATED_PREFIX: &str = "SIMULATED-";

/// Longest document, in bytes: the longest answer of the module.
pub const MAX_DOCUMENT: usize = 12 * 1024;
/// Most bytes of `public_key` in a document; at least 1.
pub const MAX_PUBLIC_KEY: usize = 1024;
/// Most bytes of `user_data` and of `nonce`.
pub const MAX_DATA: usize = 512;

/// The claims of a document beside the measurements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// A public key, usually as SubjectPublicKeyInfo.
    pub public_key: Option<Vec<u8>>,
    /// Data of the requester's choice.
    pub user_data: Option<Vec<u8>>,
    /// A nonce, which shows that the document is fresh.
    pub nonce: Option<Vec<u8>>,
}

impl Claims {
    /// Checks that the claims fit into a document.
    ///
    /// # Errors
    /// [`Error::Limit`] names the claim that does not fit, and the limit.
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
    /// Makes a document. The call may block for some milliseconds.
    ///
    /// # Errors
    /// [`Error::Limit`] for claims that do not fit, [`Error::Module`] when the module refuses.
    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, Error>;
}
