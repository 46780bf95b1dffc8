//! Reasons why the host did not open a flow.

/// Why the host did not open a flow: an error type of RFC 9209 section 2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The target refused the connection.
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
    /// The host has reached its limit of flows.
    #[error("too many flows on the host")]
    LimitReached,
    /// The host's resolver did not answer in time.
    #[error("resolver timed out")]
    DnsTimeout,
    /// The host's resolver failed.
    #[error("resolver failed")]
    DnsError,
    /// The host did not understand the request.
    #[error("malformed request")]
    BadRequest,
    /// The host failed in another way.
    #[error("internal error of the host")]
    Internal,
}
