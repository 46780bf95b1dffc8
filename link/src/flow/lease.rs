//! What a connection and its flows share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::HeaderValue;
use tokio::sync::Notify;

use crate::drain::delivery::DeliveryTable;
use crate::drain::flush::FlushResult;
use crate::flow::lane::NamedConnection;
use crate::http2::executor::ConnectionExecutor;

/// Counts the open flows of a pool.
#[derive(Debug, Default)]
pub(crate) struct FlowCount {
    count: AtomicUsize,
    none: Notify,
}

impl FlowCount {
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until no flow is open.
    pub(crate) async fn none(&self) {
        loop {
            let notified = self.none.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Counts one flow as open until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamLease {
    shared: Arc<ConnectionState>,
    /// `None`: a feed, for which no drain waits.
    flows: Option<Arc<FlowCount>>,
}

impl StreamLease {
    pub(crate) fn new(shared: &Arc<ConnectionState>, flows: Option<&Arc<FlowCount>>) -> Self {
        shared.load.fetch_add(1, Ordering::Relaxed);
        if let Some(flows) = flows {
            shared.used.store(true, Ordering::Relaxed);
            flows.count.fetch_add(1, Ordering::AcqRel);
        }
        Self {
            shared: Arc::clone(shared),
            flows: flows.cloned(),
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
        let Some(flows) = &self.flows else { return };
        if flows.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            flows.none.notify_waiters();
        }
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
