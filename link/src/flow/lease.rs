//! What a connection and its flows share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::HeaderValue;

use crate::drain::Guard;
use crate::drain::delivery::DeliveryTable;
use crate::drain::flush::FlushResult;
use crate::drain::guard::GuardCount;
use crate::flow::lane::NamedConnection;
use crate::http2::executor::ConnectionExecutor;

/// Counts one flow as open until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamLease {
    shared: Arc<ConnectionState>,
    /// `None`: a feed, for which no drain waits.
    _flow: Option<Guard>,
}

impl StreamLease {
    pub(crate) fn new(shared: &Arc<ConnectionState>, flows: Option<&Arc<GuardCount>>) -> Self {
        shared.load.fetch_add(1, Ordering::Relaxed);
        if flows.is_some() {
            shared.used.store(true, Ordering::Relaxed);
        }
        Self {
            shared: Arc::clone(shared),
            _flow: flows.map(GuardCount::guard),
        }
    }

    /// What this connection's flows have not delivered on this side.
    pub(crate) fn deliveries(&self) -> &Arc<DeliveryTable> {
        &self.shared.deliveries
    }

    /// The header that tells a guest the connection's name.
    pub(crate) fn lane_header(&self) -> Option<HeaderValue> {
        self.shared.name.as_ref().map(NamedConnection::header)
    }

    /// What the other half reports on the delivery of this connection.
    pub(crate) fn flush_result(&self) -> FlushResult {
        self.shared.flush_result.clone()
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.shared.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection and its flows share.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    pub(crate) load: AtomicUsize,
    /// The executor of the connection and of flows on it.
    pub(crate) executor: ConnectionExecutor,
    /// Whether the connection has carried a flow.
    pub(crate) used: AtomicBool,
    /// What the other half reports on the flows' delivery when they end.
    pub(crate) flush_result: FlushResult,
    /// What the connection's flows have not delivered on this side.
    pub(crate) deliveries: Arc<DeliveryTable>,
    /// On a host: the name by which a guest dials a lane.
    pub(crate) name: Option<NamedConnection>,
}
