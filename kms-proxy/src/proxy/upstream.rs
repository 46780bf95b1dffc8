//! HTTPS to KMS. The guest makes the connections; TLS is made here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use odyn_proto::KmsEndpoint;
use pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Most idle connections to an endpoint that are kept.
const IDLE_CONNECTIONS: usize = 32;
/// How long a connection may be idle. KMS allows more, so few requests find it closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection and its TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long KMS may take to answer. Key pairs take tenths of seconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer in bytes. The longest of KMS has about 100 KiB.
const MAX_ANSWER: usize = 1 << 20;

/// A connection to an endpoint.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Makes connections to endpoints. They need not be trusted: TLS runs over them.
pub trait Dial: Send + Sync {
    /// Connects to an endpoint.
    fn dial(&self, endpoint: &KmsEndpoint) -> BoxFuture<'static, io::Result<Box<dyn Io>>>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("{0}")]
    Failed(String),
    #[error("KMS did not answer within {0:?}")]
    TimedOut(Duration),
}

/// A client with a pool of connections.
pub(super) struct KmsUpstream {
    client: Client<Connector, Full<Bytes>>,
    limit: Duration,
}

impl KmsUpstream {
    /// `limit` is for each answer.
    pub(super) fn new(
        dial: Arc<dyn Dial>,
        roots: RootCertStore,
        limit: Duration,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = Connector {
            dial,
            tls: TlsConnector::from(Arc::new(tls)),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { client, limit })
    }

    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, NoAnswer> {
        let exchange = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| NoAnswer::Failed(chain(&error)))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| NoAnswer::Failed(chain(error.as_ref())))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        timeout(self.limit, exchange)
            .await
            .unwrap_or(Err(NoAnswer::TimedOut(self.limit)))
    }
}

/// The text of an error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[derive(Clone)]
struct Connector {
    dial: Arc<dyn Dial>,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TlsIo;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TlsIo>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            let endpoint = KmsEndpoint::parse(authority).map_err(io::Error::other)?;
            let connect = async {
                let name = endpoint.name().to_string();
                let name = ServerName::try_from(name).map_err(io::Error::other)?;
                let io = this.dial.dial(&endpoint).await?;
                this.tls.connect(name, io).await
            };
            match timeout(CONNECT_TIMEOUT, connect).await {
                Ok(connected) => Ok(TlsIo(TokioIo::new(connected?))),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} does not answer", endpoint.name()),
                )),
            }
        })
    }
}

/// A TLS session for hyper.
struct TlsIo(TokioIo<TlsStream<Box<dyn Io>>>);

impl Connection for TlsIo {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
