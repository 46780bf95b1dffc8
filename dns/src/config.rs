//! Settings of the resolver, with their defaults.

use std::time::Duration;

/// The settings of the resolver. `Config::default()` is the documented behaviour.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Longest time to live of a synthetic answer; shorter if the upstream's is. 30 s.
    pub ttl: Duration,
    /// How long a binding is protected after the time to live of its last answer, for apps that
    /// keep addresses longer. 60 s.
    pub grace: Duration,
    /// Most names that are bound at once; at most [`pool::MAX_NAMES`](crate::pool::MAX_NAMES).
    /// 65 536.
    pub names: usize,
    /// Memory limit of the cache, in bytes of upstream answers. 8 MiB.
    pub cache_bytes: usize,
    /// The response code of denied queries.
    pub denied: DeniedReply,
    /// Largest answer datagram to send, in bytes; 1232 as of DNS flag day 2020.
    pub udp_payload: u16,
    /// Time limit of a query to the upstream. 4.5 s: stub resolvers give up after 5 s, and the
    /// failure must reach them before that.
    pub upstream_timeout: Duration,
    /// Most queries that wait for the upstream; further ones fail immediately. 512.
    pub upstream_inflight: usize,
    /// Most datagrams that wait for an answer; further ones fail immediately. 1024.
    pub udp_inflight: usize,
    /// Most open TCP connections; further ones are closed immediately. 256.
    pub tcp_connections: usize,
    /// Most queries of one TCP connection that wait (RFC 7766 section 6.2.1.1); further ones are
    /// not read. 32.
    pub tcp_pipeline: usize,
    /// How long a TCP connection may be idle, or stall in the middle of a message. 10 s.
    pub tcp_idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            grace: Duration::from_secs(60),
            names: 65_536,
            cache_bytes: 8 << 20,
            denied: DeniedReply::NxDomain,
            udp_payload: 1232,
            upstream_timeout: Duration::from_millis(4500),
            upstream_inflight: 512,
            udp_inflight: 1024,
            tcp_connections: 256,
            tcp_pipeline: 32,
            tcp_idle: Duration::from_secs(10),
        }
    }
}

/// The response code of a denied query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeniedReply {
    /// NXDOMAIN, the only code after which every libc tries the rest of its search list.
    ///
    /// The answer has no SOA, so that no cache inside the guest keeps it (RFC 2308 section 5) or
    /// concludes that nothing exists below the name (RFC 8020).
    #[default]
    NxDomain,
    /// REFUSED, which is more precise, but glibc stops its search and musl waits for its time-out.
    Refused,
}
