//! Settings of the guest's link.

use std::sync::Arc;
use std::time::Duration;

use odyn_proto::Endpoint;

use crate::config::{Tuning, processors};
use crate::drain::Watch;
use crate::pool::reconnect::Redial;
use crate::pool::{Pool, PoolConfig, PoolHandle};

/// Configuration of a [`HostLink`](crate::HostLink).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HostLinkConfig {
    /// What guest and host share.
    pub tuning: Tuning,
    /// Connections that the guest keeps open. TCP flows avoid the first when there are others, so
    /// that UDP and DNS do not wait behind them. The processing of small TCP messages is spread
    /// over the others: by default one more than there are processors, and three to nine. With 0
    /// the link never comes up.
    pub connections: usize,
    /// Longest wait for the transport to connect. The first attempt gets a second. Each attempt
    /// that was too short is followed by one twice as long, up to this and
    /// [`Tuning::handshake_timeout`].
    pub dial_timeout: Duration,
    /// Longest wait for a link that is down, before opening a flow fails.
    pub open_wait: Duration,
    /// Longest wait for the host to open a flow, the wait for room included. It is longer than the
    /// host waits for the destination, and about as long as a kernel tries to connect.
    pub open_timeout: Duration,
    /// First pause before dialling again; doubled at each failure, with jitter.
    pub backoff_min: Duration,
    /// Longest pause before dialling again. A dial of the host on the same machine costs some
    /// twenty microseconds. So the guest dials a host that is away for hours some times a second,
    /// and finds it at once when it is back.
    pub backoff_max: Duration,
    /// Longest wait for the answer to a DNS message.
    pub dns_timeout: Duration,
}

impl Default for HostLinkConfig {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            connections: (processors() + 2).clamp(4, 10),
            dial_timeout: Duration::from_secs(5),
            open_wait: Duration::from_secs(3),
            open_timeout: Duration::from_secs(120),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(250),
            dns_timeout: Duration::from_secs(10),
        }
    }
}

impl HostLinkConfig {
    /// Starts the pool of connections to `endpoint`.
    pub(super) fn start(self, endpoint: Endpoint, drain: Watch) -> PoolHandle {
        let redial = Redial {
            endpoint,
            timeout: self.dial_timeout,
            backoff_min: self.backoff_min,
            backoff_max: self.backoff_max,
        };
        let config = PoolConfig {
            tuning: self.tuning,
            open_wait: self.open_wait,
            open_timeout: self.open_timeout,
            lanes: None,
        };
        Pool::dialling(config, Arc::new(redial), self.connections, drain)
    }
}
