//! KMS for the app: [`odyn_kms::proxy`] on the guest's loopback, over the host.
//!
//! The host connects the proxy to KMS and supplies the instance's credentials.
//!
//! The host sees TLS only. It could refuse service, or supply credentials of its own choice.
//! Credentials decide what KMS allows, not who can read the answers.

mod environment;
mod link;

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use odyn_kms::attest::Module;
use odyn_kms::credentials::CredentialsCache;
use odyn_kms::proxy::{ANSWER_TIMEOUT, Demands, Endpoints, Proxy, ProxyParts, serve, web_roots};
use odyn_policy::KmsProxySettings;
use pki_types::CertificateDer;
use pki_types::pem::PemObject;
use rustls::RootCertStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::egress::KmsLink;
use crate::kms::link::{HostCredentials, HostDial};

pub use environment::Changes;
use environment::Given;

/// A proxy that listens and does not serve yet.
pub struct Prepared {
    proxy: Arc<Proxy>,
    listener: TcpListener,
    given: Given,
    link: KmsLink,
}

/// The reason why the proxy cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KmsStartError {
    /// The file with root certificates cannot be used.
    #[error("kms_proxy: cannot use {path}: {source}")]
    Roots {
        /// The file.
        path: String,
        /// The fault in the file.
        source: io::Error,
    },
    /// The kernel gave no random numbers.
    #[error("kms_proxy: no random numbers: {0}")]
    Random(#[source] getrandom::Error),
    /// The proxy rejects its settings.
    #[error("kms_proxy: {0}")]
    Proxy(#[source] rustls::Error),
    /// The port is taken.
    #[error("kms_proxy: port {port}: {source}")]
    Port {
        /// The port.
        port: u16,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Prepares the proxy of the policy. Must be called in a tokio runtime.
///
/// # Errors
/// A setting of the policy cannot be used, or the port is taken.
pub fn prepare(
    wanted: &KmsProxySettings,
    link: KmsLink,
    module: Arc<dyn Module>,
) -> Result<Prepared, KmsStartError> {
    let roots = match &wanted.ca_file {
        Some(path) => roots(Path::new(path)).map_err(|source| KmsStartError::Roots {
            path: path.to_string(),
            source,
        })?,
        None => web_roots(),
    };
    let given = Given::new(|name| std::env::var(name).ok()).map_err(KmsStartError::Random)?;
    let proxy = Proxy::new(ProxyParts {
        module,
        dial: Arc::new(HostDial(link.clone())),
        credentials: CredentialsCache::new(HostCredentials(link.clone())),
        app: given.credentials(),
        endpoints: Endpoints::new(wanted.endpoints.clone()),
        demands: demands(wanted),
        roots,
        answer_timeout: ANSWER_TIMEOUT,
    });
    Ok(Prepared {
        proxy: Arc::new(proxy.map_err(KmsStartError::Proxy)?),
        listener: listen(wanted.listen_port.get()).map_err(|source| KmsStartError::Port {
            port: wanted.listen_port.get(),
            source,
        })?,
        given,
        link,
    })
}

fn demands(wanted: &KmsProxySettings) -> Demands {
    Demands {
        key_id: wanted.require_key_id,
        encryption_context: wanted.require_encryption_context,
    }
}

impl Prepared {
    /// Starts to generate the proxy's key, until `stop` is cancelled.
    pub fn start(&self, stop: &CancellationToken, tasks: &TaskTracker) {
        // Generating a key takes a while; the app's start does not wait for it.
        let (proxy, token) = (Arc::clone(&self.proxy), stop.clone());
        tasks.spawn(async move { token.run_until_cancelled(proxy.warm_up()).await });
    }

    /// The variables for the app. Waits shortly for the host to report its region.
    pub async fn environment(&self) -> Changes {
        let port = self
            .listener
            .local_addr()
            .map_or(0, |address| address.port());
        let region = environment::region(&self.link).await;
        self.given.changes(port, region)
    }

    /// Serves requests until `stop` is cancelled.
    pub fn serve(self, stop: &CancellationToken, tasks: &TaskTracker) {
        tasks.spawn(serve(self.proxy, self.listener, stop.clone()));
    }
}

/// Opens a listener on the guest's loopback.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn roots(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
        let certificate = certificate.map_err(io::Error::other)?;
        roots.add(certificate).map_err(io::Error::other)?;
    }
    match roots.is_empty() {
        true => Err(io::Error::other("it has no certificate")),
        false => Ok(roots),
    }
}
