//! `CiphertextForRecipient`: the answer of KMS to a request with an attestation document.
//!
//! It is a CMS EnvelopedData (RFC 5652 section 6) in BER with indefinite lengths:
//!
//! ```text
//! 30 80                                ContentInfo
//!    06 09 1.2.840.113549.1.7.3          envelopedData
//!    A0 80
//!       30 80                            EnvelopedData
//!          02 01 02                        version 2
//!          31 len                          RecipientInfos: one, of definite length
//!             30 len                         KeyTransRecipientInfo
//!                02 01 02                      version 2
//!                80 20 …                       subjectKeyIdentifier: SHA-256 of our public key
//!                30 3C …                       RSAES-OAEP, SHA-256, MGF1 with SHA-256
//!                04 82 01 00 …                 the content's key, encrypted
//!          30 80                           EncryptedContentInfo
//!             06 09 1.2.840.113549.1.7.1     data
//!             30 1D … 04 10 …                AES-256-CBC and its IV
//!             A0 80 (04 len …)* 00 00        the content in chunks; or in one: 80 len …
//!          00 00
//!       00 00
//!    00 00
//! 00 00
//! ```
//!
//! The parser accepts this form and no other. The content is not authenticated: the TLS session to
//! KMS, which ends in the guest, protects its integrity.

mod open;
mod parse;
#[cfg(any(test, feature = "test-util"))]
pub mod seal;
#[cfg(test)]
mod tests;

pub use open::RecipientKey;
pub use parse::Envelope;

/// Longest envelope in bytes. An RSA-4096 private key with its wrapping has 3 KiB.
pub const MAX_ENVELOPE: usize = 64 * 1024;
/// The algorithm's name in a request's `Recipient`.
pub const KEY_ENCRYPTION_ALGORITHM: &str = "RSAES_OAEP_SHA_256";

/// 1.2.840.113549.1.7.3, with its tag and length.
const OID_ENVELOPED_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03";
/// 1.2.840.113549.1.7.1.
const OID_DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
/// Version 2 of EnvelopedData and of KeyTransRecipientInfo: with a subjectKeyIdentifier.
const VERSION_2: &[u8] = b"\x02\x01\x02";
/// RSAES-OAEP (RFC 4055 section 4.1) with its parameters written out.
const OAEP_SHA256: &[u8] = b"\x30\x3c\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07\
    \x30\x2f\xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00";
/// AES-256-CBC, up to its IV.
const AES_256_CBC: &[u8] = b"\x30\x1d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a\x04\x10";
/// A SEQUENCE of indefinite length.
const SEQUENCE_OPEN: &[u8] = b"\x30\x80";
/// A constructed \[0\] of indefinite length.
const CONTEXT_0_OPEN: &[u8] = b"\xa0\x80";
/// End of contents.
const END: &[u8] = b"\x00\x00";

/// Bytes of an AES block, and of the IV.
const BLOCK: usize = 16;
/// Bytes of the content's key.
const CONTENT_KEY: usize = 32;
