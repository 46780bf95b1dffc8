//! Verification of attestation documents.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use ciborium::Value;
use pki_types::{CertificateDer, UnixTime};
use webpki::aws_lc_rs::ECDSA_P384_SHA384;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::Document;
use super::document::{PROTECTED, Signed};
use crate::DocumentFault;

/// How far the verifier's clock may be behind the module's.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);
/// SubjectPublicKeyInfo of a key on P-384, up to the uncompressed point (RFC 5480).
const P384_PREFIX: &[u8] = b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
    \x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
/// Bytes of the point.
const P384_POINT: usize = 97;

/// What a document must match.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// The certificate that the chain must lead to, DER.
    pub root: &'a [u8],
    /// The time at which everything must be valid.
    pub at: SystemTime,
    /// The required values of PCRs.
    pub pcrs: BTreeMap<u8, Vec<u8>>,
    /// The required nonce.
    pub nonce: Option<&'a [u8]>,
}

impl<'a> Expected<'a> {
    /// Expects a valid document of this root at this time, with any content.
    pub fn of_root(root: &'a [u8], at: SystemTime) -> Self {
        Self {
            root,
            at,
            pcrs: BTreeMap::new(),
            nonce: None,
        }
    }
}

/// Verifies a document: its form, chain, signature, time, and the expected values.
///
/// The order does not matter for the result. The signature covers the chain as well, so trust
/// rests on the root alone.
///
/// # Errors
/// The first check that failed.
pub fn verify(bytes: &[u8], expected: &Expected<'_>) -> Result<Document, DocumentFault> {
    let signed = Signed::read(bytes)?;
    let document = Document::of_payload(&signed.payload)?;
    let certificate = CertificateDer::from(document.certificate.as_slice());
    let leaf = EndEntityCert::try_from(&certificate).map_err(chain)?;
    // Before the chain: an unsigned document costs one check of a signature, not five.
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point(&leaf)?)
        .verify(&to_be_signed(&signed.payload), &signed.signature)
        .map_err(|_| DocumentFault::Signature)?;
    trust(&leaf, &document.cabundle, expected)?;
    let latest = expected.at.checked_add(CLOCK_TOLERANCE);
    if latest.is_some_and(|latest| document.timestamp > latest) {
        return Err(DocumentFault::Future {
            made: document.timestamp,
            at: expected.at,
        });
    }
    for (index, wanted) in &expected.pcrs {
        let found = document.pcrs.get(index);
        if found != Some(wanted) {
            return Err(DocumentFault::Pcr {
                index: *index,
                found: found.map_or_else(|| "absent".to_owned(), |bytes| hex(bytes)),
                wanted: hex(wanted),
            });
        }
    }
    match expected.nonce {
        Some(nonce) if document.claims.nonce.as_deref() != Some(nonce) => Err(DocumentFault::Nonce),
        _ => Ok(document),
    }
}

/// The public key of a certificate as a point.
fn point(leaf: &EndEntityCert<'_>) -> Result<Vec<u8>, DocumentFault> {
    match leaf.subject_public_key_info().strip_prefix(P384_PREFIX) {
        Some(point) if point.len() == P384_POINT => Ok(point.to_vec()),
        _ => Err(DocumentFault::Chain("its key is not on P-384".into())),
    }
}

/// Checks that a certificate leads to the root at that time.
fn trust(
    leaf: &EndEntityCert<'_>,
    bundle: &[Vec<u8>],
    expected: &Expected<'_>,
) -> Result<(), DocumentFault> {
    let root = CertificateDer::from(expected.root);
    let anchor = anchor_from_trusted_cert(&root).map_err(chain)?;
    let at = expected.at.duration_since(SystemTime::UNIX_EPOCH);
    let between: Vec<CertificateDer<'_>> = bundle
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    // The module's certificates have no extended key usage, and this usage asks for none.
    leaf.verify_for_usage(
        &[ECDSA_P384_SHA384],
        &[anchor],
        &between,
        UnixTime::since_unix_epoch(at.unwrap_or_default()),
        KeyUsage::client_auth(),
        None,
        None,
    )
    .map_err(chain)?;
    Ok(())
}

fn chain(error: webpki::Error) -> DocumentFault {
    DocumentFault::Chain(error.to_string())
}

/// Sig_structure (RFC 9052 section 4.4).
pub(super) fn to_be_signed(payload: &[u8]) -> Vec<u8> {
    let structure = Value::Array(vec![
        Value::Text("Signature1".into()),
        Value::Bytes(PROTECTED.to_vec()),
        Value::Bytes(Vec::new()),
        Value::Bytes(payload.to_vec()),
    ]);
    write(&structure)
}

pub(super) fn write(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail, and a truncated message would not verify.
    let _ = ciborium::into_writer(value, &mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
