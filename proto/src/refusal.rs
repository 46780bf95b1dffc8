//! Why the host did not open a flow.

/// Why the host did not open a flow: the error types of RFC 9209 section 2.3 that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Nobody listens at the target.
    #[error("connection refused")]
    ConnectionRefused,
    /// The target did not answer in time.
    #[error("connection timed out")]
    ConnectionTimeout,
    /// The host has no route to the target.
    #[error("destination unroutable")]
    Unroutable,
    /// The host's operator does not allow the target.
    #[error("destination prohibited by the host")]
    Prohibited,
    /// The host has no room for a further flow.
    #[error("too many flows on the host")]
    LimitReached,
    /// The host's resolver gave no answer in time.
    #[error("resolver timed out")]
    DnsTimeout,
    /// The host's resolver failed.
    #[error("resolver failed")]
    DnsError,
    /// The host did not understand the request.
    #[error("malformed request")]
    BadRequest,
    /// Something else failed on the host.
    #[error("internal error of the host")]
    Internal,
}
