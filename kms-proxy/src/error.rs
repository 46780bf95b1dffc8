//! What can go wrong.

use std::time::SystemTime;

/// Failures of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A `CiphertextForRecipient` is not what KMS sends.
    #[error("the envelope is not KMS' format: {what} expected at byte {at}")]
    Envelope {
        /// What should stand there.
        what: &'static str,
        /// Where, in bytes from the start.
        at: usize,
    },
    /// An envelope for another key than ours, such as an answer that is replayed.
    #[error("the envelope is for another key")]
    OtherRecipient,
    /// An envelope cannot be decrypted. One error whatever failed, so that it tells nothing.
    #[error("the envelope cannot be decrypted")]
    Decrypt,
    /// The library refused to make or to read a key.
    #[error("cannot make a key: {0}")]
    Key(&'static str),
    /// What shall go into an attestation document does not fit.
    #[error("{field} has {length} bytes, and an attestation document takes {min} to {max}")]
    Limit {
        /// `public_key`, `user_data` or `nonce`.
        field: &'static str,
        /// Bytes that there are.
        length: usize,
        /// Fewest bytes.
        min: usize,
        /// Most bytes.
        max: usize,
    },
    /// The Nitro Secure Module cannot be asked, or refuses.
    #[error("the Nitro Secure Module: {0}")]
    Module(String),
    /// An attestation document proves nothing.
    #[error("the attestation document is not valid: {0}")]
    Document(#[from] DocumentFault),
}

/// Why an attestation document proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentFault {
    /// It is longer than any module makes them.
    #[error("it has {0} bytes, and no module makes more than {max}", max = crate::attest::MAX_DOCUMENT)]
    TooLong(usize),
    /// It is not a COSE_Sign1 message, or has members that it should not have.
    #[error("it is no COSE_Sign1 message: {0}")]
    Envelope(&'static str),
    /// A member of the payload is missing or not as it should be.
    #[error("its member {member} {problem}")]
    Member {
        /// Which.
        member: &'static str,
        /// What about it.
        problem: &'static str,
    },
    /// The chain of certificates does not lead to the root, or not at that time.
    #[error("its certificate is not trusted: {0}")]
    Chain(String),
    /// The signature is not that of the certificate.
    #[error("its signature is wrong")]
    Signature,
    /// It says that it was made later than it is looked at.
    #[error("it is from the future: made at {made:?}, looked at {at:?}")]
    Future {
        /// When it says that it was made.
        made: SystemTime,
        /// When it is looked at.
        at: SystemTime,
    },
    /// A PCR has another value.
    #[error("PCR{index} is {found}, and {wanted} is wanted")]
    Pcr {
        /// Its number.
        index: u8,
        /// The value in the document, in hex, or `absent`.
        found: String,
        /// The wanted value in hex.
        wanted: String,
    },
    /// The nonce is another.
    #[error("its nonce is another")]
    Nonce,
}
