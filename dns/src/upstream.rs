//! The way to real answers.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;

/// Carries whole DNS messages to a resolver outside the guest.
///
/// The other side is not trusted: the id, the question and the shape of what it returns are
/// checked here, and [`Config::upstream_timeout`](crate::Config) bounds how long it may take.
pub trait Upstream: Send + Sync + 'static {
    /// Sends one query message and returns the answer message.
    fn exchange(&self, query: Bytes) -> impl Future<Output = Result<Bytes, UpstreamError>> + Send;
}

/// Why there is no answer message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The way to the upstream is closed; it may come back.
    #[error("the way to the upstream resolver is closed")]
    Unavailable(#[source] Option<Box<dyn Error + Send + Sync>>),
    /// Nothing came in time.
    #[error("the upstream resolver did not answer in time")]
    Timeout,
}
