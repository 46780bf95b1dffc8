//! Certificates made in the test, and a client that says when TLS did not end properly.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// An authority of one test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's certificate, PEM.
    pub pem: String,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
}

impl Default for Authority {
    fn default() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // Another name than that of what it issues, or OpenSSL takes that for self-signed.
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }
}

impl Authority {
    /// A certificate for these names.
    ///
    /// # Panics
    /// When rcgen fails.
    pub fn issue(&self, names: &[&str]) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key`; says where they are.
    ///
    /// # Panics
    /// When they can't be written.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let paths = (
            dir.join(format!("{name}.pem")),
            dir.join(format!("{name}.key")),
        );
        fs::write(&paths.0, &self.cert).expect("own directory");
        fs::write(&paths.1, &self.key).expect("own directory");
        paths
    }

    /// The certificate as it stands on the wire.
    ///
    /// # Panics
    /// When it is none.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate")
    }
}

/// How a client speaks TLS.
#[derive(Debug, Default)]
pub struct Client {
    /// Only TLS 1.2.
    pub old: bool,
    /// The protocols offered by ALPN.
    pub alpn: Vec<Vec<u8>>,
    /// The client's own certificate.
    pub own: Option<Issued>,
}

/// A session of TLS over a blocking socket. Reading ends with `Ok(0)` after close_notify only.
pub type Session = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    /// Makes the handshake, and asks for the server of this name.
    ///
    /// # Errors
    /// The errors are those of the handshake.
    ///
    /// # Panics
    /// When the certificates can't be used.
    pub fn connect(
        &self,
        mut socket: TcpStream,
        authority: &Authority,
        name: &str,
    ) -> io::Result<Session> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem.as_bytes());
        roots.add(root.expect("PEM")).expect("an authority");
        let versions: &[_] = match self.old {
            true => &[&rustls::version::TLS12],
            false => &[&rustls::version::TLS13],
        };
        // The workspace has two; rustls does not choose by itself then.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions that the provider knows")
            .with_root_certificates(roots);
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
                builder
                    .with_client_auth_cert(vec![own.der()], key)
                    .expect("a certificate and its key")
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection =
            ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }
}

/// Ends our direction with close_notify, and leaves the socket open.
///
/// # Errors
/// When it can't be written.
pub fn close_notify(session: &mut Session) -> io::Result<()> {
    session.conn.send_close_notify();
    session.flush()
}

/// All that comes up to close_notify.
///
/// # Errors
/// Every other end.
pub fn read_all(session: &mut Session) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    session.read_to_end(&mut bytes)?;
    Ok(bytes)
}
