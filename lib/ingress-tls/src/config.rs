//! The TLS configuration of one port.

use std::io;
use std::sync::Arc;

use odyn_policy::{CertificateFiles, ClientCertificates, FilePath, TlsFiles, TlsVersion};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::certificate;
use crate::certificate::Certificate;
use crate::choose::Chooser;
use crate::fault::{Fault, FaultReason};

/// Largest file in bytes: enough for a bundle of some hundred authorities.
pub const MAX_FILE: u64 = 1 << 20;

const ONLY_1_3: &[&SupportedProtocolVersion] = &[&TLS13];
const FROM_1_2: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Makes the configuration that the policy asks for.
///
/// `read` returns the bytes of a file; it need not read more than [`MAX_FILE`].
///
/// # Errors
/// All faults of the files.
pub fn load(
    wanted: &TlsFiles,
    mut read: impl FnMut(&str) -> io::Result<Vec<u8>>,
) -> Result<Arc<ServerConfig>, Vec<Fault>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut faults = Vec::new();
    let mut certificates = Vec::new();
    for files in &wanted.certificates {
        match certificate(files, &provider, &mut read) {
            Ok(certificate) => certificates.push(certificate),
            Err(found) => faults.extend(found),
        }
    }
    let clients = wanted.clients.as_ref();
    let verifier = clients.map(|clients| verifier(clients, &provider, &mut read));
    let verifier = match verifier.transpose() {
        Ok(verifier) => verifier,
        Err(fault) => {
            faults.push(fault);
            None
        }
    };
    if !faults.is_empty() {
        return Err(faults);
    }
    let versions = match wanted.min_version {
        TlsVersion::V1_3 => ONLY_1_3,
        _ => FROM_1_2,
    };
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        // AWS-LC has suites for both versions.
        .map_err(|_| Vec::new())?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Chooser::new(certificates)));
    let alpn = wanted.alpn.iter();
    config.alpn_protocols = alpn.map(|name| name.clone().into_bytes()).collect();
    Ok(Arc::new(config))
}

type Read<'a> = &'a mut dyn FnMut(&str) -> io::Result<Vec<u8>>;

fn certificate(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    read: Read<'_>,
) -> Result<Certificate, Vec<Fault>> {
    let chain = parsed(&files.cert_file, read, certificate::chain);
    let key = parsed(&files.key_file, read, certificate::private_key);
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err([chain.err(), key.err()].into_iter().flatten().collect()),
    };
    Certificate::new(chain, key, provider, &files.cert_file.path).map_err(|reason| {
        let file = match reason {
            FaultReason::NoCertificate | FaultReason::BadCertificate => &files.cert_file,
            _ => &files.key_file,
        };
        vec![fault(file, reason)]
    })
}

fn verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
    read: Read<'_>,
) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    let authorities = parsed(&clients.ca_file, read, certificate::chain)?;
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority)
            .map_err(|_| fault(&clients.ca_file, FaultReason::BadAuthority))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if clients.required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder
        .build()
        .map_err(|_| fault(&clients.ca_file, FaultReason::BadAuthority))
}

fn parsed<T>(
    file: &FilePath,
    read: Read<'_>,
    parse: impl FnOnce(&[u8]) -> Result<T, FaultReason>,
) -> Result<T, Fault> {
    let parsed = match read(&file.path) {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE => Err(FaultReason::TooLarge),
        Ok(bytes) => parse(&bytes),
        Err(error) => Err(FaultReason::Unreadable(error)),
    };
    parsed.map_err(|reason| fault(file, reason))
}

fn fault(file: &FilePath, reason: FaultReason) -> Fault {
    Fault {
        file: file.clone(),
        reason,
    }
}
