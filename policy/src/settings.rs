//! Everything in the policy file that is not an egress rule.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use odyn_proto::KmsEndpoint;

use crate::diagnostic::Span;

/// Whether the policy is enforced or tried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// What no rule allows is denied.
    #[default]
    Enforce,
    /// What would be denied passes and is recorded, except what is never safe to pass: special
    /// and synthetic addresses, `localhost`, port 0, names without an address.
    Report,
}

impl Mode {
    /// `enforce` or `report`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
        }
    }
}

/// The policy file without its egress rules.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Settings {
    /// `name`.
    pub name: Option<String>,
    /// `egress.mode`.
    pub mode: Mode,
    /// `dns`.
    pub dns: Dns,
    /// `ingress`, in the order of the file.
    pub ingress: Vec<Ingress>,
    /// `kms_proxy`.
    pub kms_proxy: Option<KmsProxy>,
    /// `api`.
    pub api: Option<Api>,
    /// `shutdown`.
    pub shutdown: Shutdown,
}

/// `dns`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dns {
    /// How long a program may keep an answer; 30 s when the file does not say.
    pub ttl: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
        }
    }
}

/// `shutdown`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// How long flows may take to end after the program has; 30 s when the file does not say.
    pub drain_timeout: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// One entry of `ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ingress {
    /// The port on which the host listens.
    pub listen_port: NonZeroU16,
    /// The port of the program in the guest; the same as `listen_port` when not given.
    pub target_port: NonZeroU16,
    /// How long a client waits for the program to listen; 10 s when the file does not say.
    pub wait_timeout: Duration,
    /// TLS that ends in the guest.
    pub tls: Option<IngressTls>,
    /// The PROXY protocol header that tells the program its client's address.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// `ingress[].tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IngressTls {
    /// With certificates from files in the guest.
    Files(Box<TlsFiles>),
    /// With a key made in the guest and named in an attestation document.
    Attested,
}

/// TLS with certificates from files in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// At least one. The first is for clients that name no server, or none that a certificate is
    /// for.
    pub certificates: Vec<CertificateFiles>,
    /// Whose certificates clients may have or must have; none is asked for when absent.
    pub clients: Option<ClientCertificates>,
    /// Protocols that are offered by ALPN, the preferred ones first; none without the key.
    pub alpn: Vec<String>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// PEM file with the certificate chain.
    pub cert_file: FilePath,
    /// PEM file with the private key.
    pub key_file: FilePath,
}

/// `tls.client_ca_file` and `tls.client_certificates`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientCertificates {
    /// PEM file with the authorities that clients' certificates come from.
    pub ca_file: FilePath,
    /// Whether clients without a certificate are refused.
    pub required: bool,
}

/// A file in the guest, and where the policy names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilePath {
    /// Absolute.
    pub path: String,
    /// Its place in the policy.
    pub span: Span,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl TlsFiles {
    /// Every file that is named, in the order of use.
    pub fn files(&self) -> impl Iterator<Item = &FilePath> {
        let certificates = self.certificates.iter();
        certificates
            .flat_map(|files| [&files.cert_file, &files.key_file])
            .chain(self.clients.iter().map(|clients| &clients.ca_file))
    }
}

/// `ingress[].proxy_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// The text header.
    V1,
    /// The binary header.
    V2,
}

/// `kms_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KmsProxy {
    /// Port on the guest's loopback.
    pub listen_port: NonZeroU16,
    /// Endpoint by AWS region, where the usual one is not wanted.
    pub endpoints: BTreeMap<String, KmsEndpoint>,
    /// PEM file with the certificates that may vouch for the endpoints, in place of the web's.
    pub ca_file: Option<String>,
    /// Refuse Decrypt without KeyId.
    pub require_key_id: bool,
    /// Refuse what can have an EncryptionContext and has none.
    pub require_encryption_context: bool,
}

/// `api`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Api {
    /// Port on the guest's loopback.
    pub listen_port: NonZeroU16,
}
