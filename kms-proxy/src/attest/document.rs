//! The parts of an attestation document, read but not verified.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ciborium::Value;

use super::cbor::{CborMembers, fault, read, sized};
use super::{MAX_DATA, MAX_DOCUMENT, MAX_PUBLIC_KEY, SIMULATED_PREFIX};
use crate::DocumentFault;

/// `{1: -35}`: the protected header, ES384 (RFC 9053 section 2.1), as every module writes it.
pub(super) const PROTECTED: &[u8] = &[0xa1, 0x01, 0x38, 0x22];
/// Bytes of an ES384 signature.
const SIGNATURE: usize = 96;
/// Most PCRs of a module.
const MAX_PCRS: usize = 32;
/// Most bytes of a certificate.
const MAX_CERTIFICATE: usize = 1024;
/// Most certificates between the document's own and the root, with the root.
const MAX_CHAIN: usize = 16;

/// The content of an attestation document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// The module that made the document: instance and enclave.
    pub module_id: String,
    /// The time at which the document was made, to the millisecond.
    pub timestamp: SystemTime,
    /// The measurements by number, each of 32, 48 or 64 bytes.
    pub pcrs: BTreeMap<u8, Vec<u8>>,
    /// The certificate that signed it, DER.
    pub certificate: Vec<u8>,
    /// From the root to the issuer of `certificate`, DER.
    pub cabundle: Vec<Vec<u8>>,
    /// The claims that the requester put in.
    pub claims: super::Claims,
}

/// A COSE_Sign1 message in its parts.
pub(super) struct Signed {
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

impl Signed {
    /// Reads exactly what the module writes: no tag, an empty unprotected header.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, DocumentFault> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(DocumentFault::TooLong(bytes.len()));
        }
        let wrong = DocumentFault::Envelope;
        let parts = read(bytes).and_then(|value| value.into_array().ok());
        let parts = parts.and_then(|parts| <[Value; 4]>::try_from(parts).ok());
        let [protected, unprotected, payload, signature] =
            parts.ok_or(wrong("no array of four"))?;
        if protected != Value::Bytes(PROTECTED.to_vec()) {
            return Err(wrong("its algorithm is not ES384"));
        }
        if unprotected != Value::Map(Vec::new()) {
            return Err(wrong("it has headers that are not signed"));
        }
        let payload = payload.into_bytes().map_err(|_| wrong("no payload"))?;
        let signature = signature.into_bytes().ok();
        let signature = signature.filter(|bytes| bytes.len() == SIGNATURE);
        Ok(Self {
            payload,
            signature: signature.ok_or(wrong("no signature of 96 bytes"))?,
        })
    }
}

impl Document {
    /// Reads a document without verifying it; see [`super::verify()`].
    ///
    /// # Errors
    /// The document is not as a module makes it.
    pub fn read(bytes: &[u8]) -> Result<Self, DocumentFault> {
        Self::of_payload(&Signed::read(bytes)?.payload)
    }

    pub(super) fn of_payload(payload: &[u8]) -> Result<Self, DocumentFault> {
        let members = read(payload).and_then(CborMembers::of);
        let mut members = members.ok_or(DocumentFault::Envelope("its payload is no map"))?;
        let module_id = members.required("module_id")?.into_text();
        let digest = members.required("digest")?.into_text();
        if digest.as_deref() != Ok("SHA384") {
            return Err(fault("digest", "is not SHA384"));
        }
        let certificate = 1..=MAX_CERTIFICATE;
        Ok(Self {
            module_id: module_id
                .ok()
                .filter(|id| !id.is_empty() && id.len() <= 256)
                .ok_or(fault("module_id", "is no name"))?,
            timestamp: timestamp(members.required("timestamp")?)?,
            pcrs: pcrs(members.required("pcrs")?)?,
            certificate: sized(
                "certificate",
                members.required("certificate")?,
                &certificate,
            )?,
            cabundle: cabundle(members.required("cabundle")?)?,
            claims: super::Claims {
                public_key: members.bytes("public_key", 1..=MAX_PUBLIC_KEY)?,
                user_data: members.bytes("user_data", 0..=MAX_DATA)?,
                nonce: members.bytes("nonce", 0..=MAX_DATA)?,
            },
        })
    }

    /// Whether the document says that it is simulated. Its root shows a false one.
    pub fn is_simulated(&self) -> bool {
        self.module_id.starts_with(SIMULATED_PREFIX)
    }

    /// Whether PCR0 is zero. The enclave then runs in debug mode and attests nothing.
    pub fn is_debug(&self) -> bool {
        self.pcrs
            .get(&0)
            .is_none_or(|pcr| pcr.iter().all(|byte| *byte == 0))
    }
}

fn timestamp(value: Value) -> Result<SystemTime, DocumentFault> {
    let wrong = || fault("timestamp", "is no time");
    let number = value.into_integer().map_err(|_| wrong())?;
    let millis = u64::try_from(number).map_err(|_| wrong())?;
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(millis))
        .filter(|_| millis > 0)
        .ok_or_else(wrong)
}

fn pcrs(value: Value) -> Result<BTreeMap<u8, Vec<u8>>, DocumentFault> {
    let wrong = || fault("pcrs", "is no map of measurements");
    let entries = value.into_map().map_err(|_| wrong())?;
    let mut pcrs = BTreeMap::new();
    for (index, value) in entries {
        let index = index.into_integer().ok().and_then(|i| u8::try_from(i).ok());
        let index = index.filter(|index| usize::from(*index) < MAX_PCRS);
        let bytes = value.into_bytes().ok();
        let bytes = bytes.filter(|bytes| [32, 48, 64].contains(&bytes.len()));
        let (index, bytes) = index.zip(bytes).ok_or_else(wrong)?;
        if pcrs.insert(index, bytes).is_some() {
            return Err(wrong());
        }
    }
    match pcrs.is_empty() {
        true => Err(wrong()),
        false => Ok(pcrs),
    }
}

fn cabundle(value: Value) -> Result<Vec<Vec<u8>>, DocumentFault> {
    let chain = value.into_array().ok();
    let chain = chain.filter(|chain| (1..=MAX_CHAIN).contains(&chain.len()));
    chain
        .ok_or(fault("cabundle", "is no list of certificates"))?
        .into_iter()
        .map(|value| sized("cabundle", value, &(1..=MAX_CERTIFICATE)))
        .collect()
}
