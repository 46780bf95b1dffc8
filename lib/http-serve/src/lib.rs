//! Serves HTTP/1.1 on a listener, within limits.
//!
//! A client can hold a connection, be slow with a head or a body, or send too much. Each of these
//! has a limit in [`Limits`], so that no caller can forget one. [`serve`] reads the body of a
//! request before it calls the handler, so a handler gets all of it or the reason why not.
//!
//! Answers may be of any size and may never end: what is served here decides that, not the client.

#![forbid(unsafe_code)]

mod accept;
mod body;
mod connection;
mod warnings;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::warnings::Warnings;

pub use accept::Accept;
pub use body::{BodyError, RequestBody};

/// Pause after `accept()` failed, which it does when there are no more file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most connections at once.
    pub max_connections: usize,
    /// What happens to a client over [`Limits::max_connections`].
    pub when_full: WhenFull,
    /// How long the head of a request may take; also how long a connection may be idle.
    pub head_timeout: Duration,
    /// How long the body of a request may take.
    pub body_timeout: Duration,
    /// Longest body of a request, in bytes.
    pub max_body: usize,
    /// How long requests that are being answered may go on after the end was asked for.
    pub drain_timeout: Duration,
}

/// What happens to a client when there are as many connections as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits in the listener's queue.
    Wait,
    /// Its connection is closed.
    Close,
}

/// Serves `listener` until `stop` is cancelled; then requests that are being answered may end.
///
/// `name` says in the log what is served. `handler` answers each request.
pub async fn serve<A, H, F, B>(
    name: &'static str,
    listener: A,
    limits: Limits,
    handler: H,
    stop: CancellationToken,
) where
    A: Accept,
    H: Fn(Request<RequestBody>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let handler = Arc::new(handler);
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let connections = TaskTracker::new();
    let mut warnings = Warnings::default();
    loop {
        let accepted = async {
            let permit = match limits.when_full {
                WhenFull::Wait => Arc::clone(&permits).acquire_owned().await.ok(),
                WhenFull::Close => None,
            };
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let socket = match accepted {
            Ok(socket) => socket,
            Err(error) => {
                if warnings.is_due(Instant::now()) {
                    tracing::warn!(name, %error, "can't accept");
                }
                sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            }
        };
        let permit = permit.or_else(|| Arc::clone(&permits).try_acquire_owned().ok());
        let Some(permit) = permit else {
            if warnings.is_due(Instant::now()) {
                let max = limits.max_connections;
                tracing::warn!(name, max, "too many connections: the newest is closed");
            }
            continue;
        };
        let (handler, stop) = (Arc::clone(&handler), stop.clone());
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = connection::serve(socket, limits, handler, stop).await {
                tracing::debug!(name, %error, "a connection failed");
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}
