//! The HTTP server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use odyn_http_serve::{Limits, RequestBody, WhenFull};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Proxy;
use super::answer::ProxyFailure;

const LIMITS: Limits = Limits {
    max_connections: 256,
    // SDKs open as many connections as they have requests: one that waits is better than an error.
    when_full: WhenFull::Wait,
    head_timeout: Duration::from_secs(60),
    body_timeout: Duration::from_secs(10),
    // KMS takes about 100 KiB at most.
    max_body: 1 << 20,
    // Longer than a request to KMS takes with its retries.
    drain_timeout: Duration::from_secs(120),
};

/// Serves on a listener until `stop` is cancelled; then completes the requests in flight.
pub async fn serve(proxy: Arc<Proxy>, listener: TcpListener, stop: CancellationToken) {
    let handler = move |request| answer(Arc::clone(&proxy), request);
    odyn_http_serve::serve("kms-proxy", listener, LIMITS, handler, stop).await;
}

async fn answer(proxy: Arc<Proxy>, request: Request<RequestBody>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let result = match body {
        Ok(body) => proxy.exchange(&parts, body).await,
        Err(error) => Err(ProxyFailure::invalid(error.to_string())),
    };
    result.unwrap_or_else(|failure| {
        tracing::info!(
            status = failure.status.as_u16(),
            code = failure.code,
            message = failure.message,
            "a request to KMS has failed"
        );
        failure.response()
    })
}
