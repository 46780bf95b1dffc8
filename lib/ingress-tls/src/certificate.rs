//! A certificate with its key.

use std::sync::Arc;

use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use crate::fault::FaultReason;

/// Start of a PEM block with an encrypted key.
const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// Start of a PEM block with an encrypted key in OpenSSL's older form.
const ENCRYPTED_BEFORE: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// A certificate chain, its key, and the names of the certificate.
#[derive(Debug)]
pub struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Certificate {
    /// Combines a chain and a key.
    ///
    /// # Errors
    /// [`FaultReason::NoCertificate`] and [`FaultReason::BadCertificate`] are about the
    /// certificate's file, the others about the key's.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        provider: &CryptoProvider,
        cert_file: &str,
    ) -> Result<Self, FaultReason> {
        let leaf = chain.first().ok_or(FaultReason::NoCertificate)?;
        let names = names(leaf)?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => FaultReason::WrongKey {
                certificate: cert_file.to_owned(),
            },
            Error::InvalidCertificate(_) => FaultReason::BadCertificate,
            _ => FaultReason::UnknownKey,
        })?;
        Ok(Self {
            key: Arc::new(key),
            names,
        })
    }

    /// The DNS names of the certificate, in lower case; `*.` at the start stands for one label.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the certificate is for a name in lower case.
    pub(crate) fn is_for(&self, server: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => server
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => name == server,
        })
    }
}

/// The DNS names of a certificate.
fn names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, FaultReason> {
    let parsed = EndEntityCert::try_from(leaf).map_err(|_| FaultReason::BadCertificate)?;
    Ok(parsed
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect())
}

/// The certificates of a PEM file.
pub(crate) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FaultReason> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| FaultReason::NotPem)?;
    if chain.is_empty() {
        return Err(FaultReason::NoCertificate);
    }
    Ok(chain)
}

/// The first private key of a PEM file.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, FaultReason> {
    let has = |what: &[u8]| pem.windows(what.len()).any(|window| window == what);
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound if has(ENCRYPTED) => FaultReason::EncryptedKey,
        pem::Error::NoItemsFound => FaultReason::NoKey,
        _ if has(ENCRYPTED_BEFORE) => FaultReason::EncryptedKey,
        _ => FaultReason::NotPem,
    })
}
