//! One connection: its requests one after the other.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::body::RequestBody;
use crate::{Limits, body};

/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Answers the requests of one client until it or `stop` ends the connection.
pub(crate) async fn serve<S, H, F, B>(
    socket: S,
    limits: Limits,
    handler: Arc<H>,
    stop: CancellationToken,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<RequestBody>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (parts, incoming) = request.into_parts();
            let body = body::read(incoming, limits).await;
            Ok::<_, Infallible>(handler(Request::from_parts(parts, body)).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(MAX_HEAD)
        // Bodies are sent from where they are: hyper's own buffer would keep a copy of secrets.
        .writev(true)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    // A request that is still unanswered then is cut.
    timeout(limits.drain_timeout, connection)
        .await
        .unwrap_or(Ok(()))
}
