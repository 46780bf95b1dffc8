//! The settings of the policy file, without the egress rules.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use odyn_proto::KmsEndpoint;

use crate::diagnostic::Span;

/// Whether the policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Flows that no rule allows are denied.
    #[default]
    Enforce,
    /// Flows that rules deny pass and are recorded.
    ///
    /// Special and synthetic addresses, `localhost`, port 0 and names without an address stay
    /// denied.
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

/// The settings of a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PolicySettings {
    /// `name`.
    pub name: Option<String>,
    /// `egress.mode`.
    pub mode: Mode,
    /// `dns`.
    pub dns: DnsSettings,
    /// `ingress`, in the order of the file.
    pub ingress: Vec<IngressSettings>,
    /// `kms_proxy`.
    pub kms_proxy: Option<KmsProxySettings>,
    /// `api`.
    pub api: Option<ApiSettings>,
    /// `shutdown`.
    pub shutdown: ShutdownSettings,
}

/// `dns`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsSettings {
    /// How long the app may keep an answer; 30 s by default.
    pub ttl: Duration,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
        }
    }
}

/// `shutdown`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownSettings {
    /// How long flows may take to end after the app has exited; 30 s by default.
    pub drain_timeout: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// One entry of `ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngressSettings {
    /// The port on which the host listens.
    pub listen_port: NonZeroU16,
    /// The port of the app in the guest; `listen_port` by default.
    pub target_port: NonZeroU16,
    /// How long a client waits for the app to listen; 10 s by default.
    pub wait_timeout: Duration,
    /// TLS that ends in the guest.
    pub tls: Option<IngressTls>,
    /// The PROXY protocol header that tells the app its client's address.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// `ingress[].tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IngressTls {
    /// Certificates from files in the guest.
    Files(Box<TlsFiles>),
    /// A key made in the guest and named in an attestation document; not implemented.
    Attested,
}

/// TLS with certificates from files in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The certificates, at least one. The first is for clients without a name that one matches.
    pub certificates: Vec<CertificateFiles>,
    /// The clients' certificates; without it, clients are not asked for one.
    pub clients: Option<ClientCertificates>,
    /// The protocols of ALPN, the preferred one first.
    pub alpn: Vec<String>,
    /// The oldest version that is accepted.
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
    /// PEM file with the authorities that sign clients' certificates.
    pub ca_file: FilePath,
    /// Whether clients without a certificate are refused.
    pub required: bool,
}

/// A file in the guest, and the place in the policy that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilePath {
    /// The absolute path.
    pub path: String,
    /// The place in the policy.
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
    /// Every file, in the order of use.
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
pub struct KmsProxySettings {
    /// Port on the guest's loopback.
    pub listen_port: NonZeroU16,
    /// Endpoints of AWS regions, in place of AWS's own.
    pub endpoints: BTreeMap<String, KmsEndpoint>,
    /// PEM file with the authorities that may sign the endpoints' certificates.
    pub ca_file: Option<String>,
    /// Whether Decrypt without a KeyId is refused.
    pub require_key_id: bool,
    /// Whether requests without an EncryptionContext are refused, if they can have one.
    pub require_encryption_context: bool,
}

/// `api`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiSettings {
    /// Port on the guest's loopback.
    pub listen_port: NonZeroU16,
}
