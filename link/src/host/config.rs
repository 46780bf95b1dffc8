//! Settings of the host's side of the link.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::config::Tuning;
use crate::flow::lane::HostLanes;
use crate::host::flow_limit::FlowLimit;

/// Configuration of the host's side.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// What both halves share.
    pub tuning: Tuning,
    /// Flows that may be open at once, on all connections that share this limit. `None`: as many as
    /// the connections have streams.
    pub flows: Option<Arc<FlowLimit>>,
    /// The open flows of all connections that share this tracker. Feeds go on until the host drains
    /// and these flows have ended, so that they still report what happens meanwhile.
    pub open: TaskTracker,
    /// Where guests find the lanes of their flows.
    pub lanes: Option<Arc<HostLanes>>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            flows: None,
            open: TaskTracker::new(),
            lanes: None,
        }
    }
}

/// Configuration of a [`GuestLink`](crate::GuestLink).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GuestLinkConfig {
    /// What guest and host share.
    pub tuning: Tuning,
    /// Longest wait for the guest to come back before opening a flow fails.
    pub open_wait: Duration,
    /// Longest wait for the guest to open a flow, the wait for room included.
    pub open_timeout: Duration,
    /// Where the guest finds the lanes of the flows that the host opens.
    pub lanes: Option<Arc<HostLanes>>,
}

impl Default for GuestLinkConfig {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            open_wait: Duration::from_secs(3),
            open_timeout: Duration::from_secs(120),
            lanes: None,
        }
    }
}
