//! Errors of this crate.

use std::time::SystemTime;

/// Failures of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A `CiphertextForRecipient` is not what KMS sends.
    #[error("the envelope does not have the format of KMS: {what} expected at byte {at}")]
    Envelope {
        /// The expected element.
        what: &'static str,
        /// The position, in bytes from the start.
        at: usize,
    },
    /// An envelope is for another key, such as a replayed answer.
    #[error("the envelope is for another key")]
    OtherRecipient,
    /// An envelope cannot be decrypted. The error is the same whatever failed, so it reveals
    /// nothing.
    #[error("the envelope cannot be decrypted")]
    Decrypt,
    /// The library refused to make or to read a key.
    #[error("cannot make a key: {0}")]
    Key(&'static str),
    /// A claim does not fit into an attestation document.
    #[error("{field} has {length} bytes; an attestation document takes {min} to {max}")]
    Limit {
        /// `public_key`, `user_data` or `nonce`.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
        /// Fewest bytes.
        min: usize,
        /// Most bytes.
        max: usize,
    },
    /// The Nitro Secure Module cannot be reached, or refuses.
    #[error("the Nitro Secure Module: {0}")]
    Module(String),
    /// An attestation document is not valid.
    #[error("the attestation document is not valid: {0}")]
    Document(#[from] DocumentFault),
}

/// Why an attestation document is not valid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentFault {
    /// The document is longer than any module makes them.
    #[error("it has {0} bytes; no module makes more than {max}", max = crate::attest::MAX_DOCUMENT)]
    TooLong(usize),
    /// The document is not a COSE_Sign1 message, or has members that it should not have.
    #[error("it is no COSE_Sign1 message: {0}")]
    Envelope(&'static str),
    /// A member of the payload is missing or malformed.
    #[error("its member {member} {problem}")]
    Member {
        /// The member.
        member: &'static str,
        /// The problem.
        problem: &'static str,
    },
    /// The chain of certificates does not lead to the root, or not at that time.
    #[error("its certificate is not trusted: {0}")]
    Chain(String),
    /// The signature is not that of the certificate.
    #[error("its signature is wrong")]
    Signature,
    /// The document was made later than the time of verification.
    #[error("it is from the future: made at {made:?}, verified at {at:?}")]
    Future {
        /// The time in the document.
        made: SystemTime,
        /// The time of verification.
        at: SystemTime,
    },
    /// A PCR has another value.
    #[error("PCR{index} is {found}, expected {wanted}")]
    Pcr {
        /// The number of the PCR.
        index: u8,
        /// The value in the document, in hex, or `absent`.
        found: String,
        /// The expected value in hex.
        wanted: String,
    },
    /// The document has another nonce.
    #[error("its nonce is not the expected one")]
    Nonce,
}
