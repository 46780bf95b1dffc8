//! The upstream resolver.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;

/// Carries whole DNS messages to a resolver outside the guest.
///
/// The upstream is not trusted. The resolver checks the id, the question and the form of its
/// answer, and [`Config::upstream_timeout`](crate::Config) limits the time.
pub trait Upstream: Send + Sync + 'static {
    /// Sends one query message and returns the answer message.
    fn exchange(&self, query: Bytes) -> impl Future<Output = Result<Bytes, UpstreamError>> + Send;
}

/// Why there is no answer message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The upstream cannot be reached now, perhaps later.
    #[error("the upstream resolver cannot be reached")]
    Unavailable(#[source] Option<Box<dyn Error + Send + Sync>>),
    /// The upstream did not answer in time.
    #[error("the upstream resolver did not answer in time")]
    Timeout,
}
