//! Settings, each with the value that serves nearly everyone.

use std::time::Duration;

/// How the resolver behaves. `Config::default()` is the documented behaviour.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Longest time to live of a synthetic answer; shorter if the upstream's is. 30 s.
    pub ttl: Duration,
    /// How long after an answer's time to live its binding is still kept from being reused: for
    /// programs that hold on to addresses. 60 s.
    pub grace: Duration,
    /// How many names may be bound at once; at most [`pool::MAX_NAMES`](crate::pool::MAX_NAMES).
    /// 65 536.
    pub names: usize,
    /// Bound on the memory of cached answers, in bytes as they came from the upstream. 8 MiB.
    pub cache_bytes: usize,
    /// What a denied query is answered with.
    pub denied: DeniedReply,
    /// Largest answer datagram to send, in bytes; 1232 as of DNS flag day 2020.
    pub udp_payload: u16,
    /// After how long a query to the upstream is given up. 4.5 s: stub resolvers give up after
    /// 5 s, and the failure should reach them before they do.
    pub upstream_timeout: Duration,
    /// How many queries may wait for the upstream at once; more fail at once. 512.
    pub upstream_inflight: usize,
    /// How many datagrams may wait for an answer at once; more fail at once. 1024.
    pub udp_inflight: usize,
    /// How many TCP connections may be open at once; more are closed at once. 256.
    pub tcp_connections: usize,
    /// How many queries of one TCP connection may wait at once (RFC 7766 section 6.2.1.1); more
    /// are not read. 32.
    pub tcp_pipeline: usize,
    /// How long a TCP connection may stay idle, or stall in the middle of a message. 10 s.
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
    /// NXDOMAIN: the only code with which every libc goes on along its search list. It carries no
    /// SOA, so that no cache inside the guest keeps it (RFC 2308 section 5) or concludes that
    /// nothing exists below the name (RFC 8020).
    #[default]
    NxDomain,
    /// REFUSED: says more, but glibc stops its search at it and musl waits until its time-out.
    Refused,
}
