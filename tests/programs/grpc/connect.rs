//! How the client gets its connections: plain, or by TLS for `shop.example`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use anyhow::Result;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// Connects to one server, and counts how often.
#[derive(Clone)]
pub(crate) struct Connector {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    count: Arc<AtomicUsize>,
}

/// A connection, with or without TLS.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Connector {
    /// With TLS when `ca` names a file of authorities.
    pub(crate) fn new(address: SocketAddr, ca: &str) -> Result<Self> {
        let tls = match ca {
            "" => None,
            ca => Some(tls(ca)?),
        };
        let count = Arc::default();
        Ok(Self {
            address,
            tls,
            count,
        })
    }

    /// Connections so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    async fn connect(self) -> io::Result<TokioIo<Box<dyn Connection>>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        self.count.fetch_add(1, Ordering::Relaxed);
        let Some(tls) = self.tls else {
            return Ok(TokioIo::new(Box::new(socket)));
        };
        let name = ServerName::try_from("shop.example").map_err(io::Error::other)?;
        Ok(TokioIo::new(Box::new(tls.connect(name, socket).await?)))
    }
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Box<dyn Connection>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

fn tls(ca: &str) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
