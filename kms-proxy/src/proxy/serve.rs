//! The HTTP server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Proxy;
use super::answer::ProxyFailure;

/// Most connections at the same time.
const CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request, or be idle between two.
const HEAD: Duration = Duration::from_secs(60);
/// How long a client may take to send a body.
const BODY: Duration = Duration::from_secs(10);
/// Longest body of a request, in bytes. KMS takes about 100 KiB at most.
const MAX_REQUEST: usize = 1 << 20;
/// Wait after a failed accept().
const PAUSE: Duration = Duration::from_millis(100);

/// Serves on a listener until `stop` is cancelled, then completes the requests in flight.
pub async fn serve(proxy: Arc<Proxy>, listener: TcpListener, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let permit = Arc::clone(&permits).acquire_owned();
        let accepted = async { (permit.await, listener.accept().await) };
        let (permit, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (proxy, stop) = (Arc::clone(&proxy), stop.clone());
        connections.spawn(async move {
            let _permit = permit;
            let _ = socket.set_nodelay(true);
            let service = service_fn(|request| answer(&proxy, request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                // Bodies are sent from their own buffers, since hyper's buffer is not overwritten.
                .writev(true)
                .serve_connection(TokioIo::new(socket), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the KMS proxy ended");
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn answer(
    proxy: &Proxy,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(BODY, Limited::new(body, MAX_REQUEST).collect()).await;
    let result = match body {
        Ok(Ok(body)) => proxy.exchange(&parts, body.to_bytes()).await,
        Ok(Err(_)) => Err(ProxyFailure::invalid(
            "the body is broken or longer than 1 MiB",
        )),
        Err(_) => Err(ProxyFailure::invalid("the body has not come in 10 s")),
    };
    Ok(result.unwrap_or_else(|failure| {
        tracing::info!(
            status = failure.status.as_u16(),
            code = failure.code,
            message = failure.message,
            "a request to KMS has failed"
        );
        failure.response()
    }))
}
