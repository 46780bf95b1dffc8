//! Drives a connection of the pool, from its first flow to its last.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use h2::client::SendRequest;
use tokio::sync::oneshot;
use tracing::debug;

use crate::drain::delivery::DeliveryTable;
use crate::drain::flush;
use crate::drain::flush::FlushReport;
use crate::drain::{Phase, PhaseStep};
use crate::error::LinkError;
use crate::flow::lease::ConnectionState;
use crate::http2::chunk::Chunk;
use crate::http2::keepalive::{Pulse, keepalive};
use crate::http2::open::{LeaveReason, OpenedConnection, Progress};
use crate::pool::peer_epoch::Epoch;
use crate::pool::{Pool, PooledConnection};

/// Publishes a connection and drives it until it takes no more flows. Returns the reason.
///
/// A task of the pool drives the connection on until its flows have ended.
pub(crate) async fn drive(
    pool: &Arc<Pool>,
    opened: OpenedConnection,
    deliveries: Arc<DeliveryTable>,
    epoch: Epoch,
) -> LeaveReason {
    let (left, leave) = oneshot::channel();
    let connection = pool.publish(opened.requests.clone(), deliveries, epoch);
    let shared = Arc::clone(&connection.shared);
    let membership = PoolMembership {
        pool: Arc::clone(pool),
        connection: Some(connection),
        left: Some(left),
    };
    let executor = shared.executor.clone();
    pool.tasks
        .spawn(executor.run(run(membership, shared, opened)));
    leave
        .await
        .unwrap_or_else(|_| LeaveReason::Lost("its task failed".into()))
}

/// A connection's membership in its pool.
struct PoolMembership {
    pool: Arc<Pool>,
    connection: Option<PooledConnection>,
    left: Option<oneshot::Sender<LeaveReason>>,
}

impl PoolMembership {
    /// Takes the connection out of the pool. The first reason counts.
    fn leave(&mut self, reason: LeaveReason) {
        let (Some(connection), Some(left)) = (self.connection.take(), self.left.take()) else {
            return debug!(%reason, "a connection that left the pool");
        };
        if matches!(reason, LeaveReason::Lost(_)) {
            self.pool.peer_epochs.lost(connection.epoch);
        }
        self.pool.retire(&connection);
        self.pool.set_down_if_empty(&reason.to_string());
        let _ = left.send(reason);
    }
}

/// Drives a connection until it ends.
async fn run(
    mut membership: PoolMembership,
    shared: Arc<ConnectionState>,
    opened: OpenedConnection,
) {
    let OpenedConnection {
        requests,
        mut driver,
        pings,
    } = opened;
    let pool = Arc::clone(&membership.pool);
    // This handle keeps the connection open until the host has confirmed all that was sent.
    let mut watched = Some(requests);
    let last = async {
        pool.closing().await;
        pool.flows.none().await;
    };
    let mut pulse = pin!(keepalive(pings, &pool.config.tuning, last));
    let mut beats = true;
    // Pinned here, as the loop turns with each frame.
    let (mut closing, mut cut) = (pin!(pool.closing()), pin!(pool.cut()));
    // Whether the host is still to be asked what is delivered.
    let mut asks = true;
    let mut asking = pin!(pool.drain.reached(Phase::Flushing));
    let mut flush: Option<Pin<Box<dyn Future<Output = FlushReport> + Send>>> = None;
    let reason = loop {
        let progress = poll_fn(|cx| driver.poll_progress(cx, watched.as_mut()));
        tokio::select! {
            biased;
            progress = progress => match progress {
                Progress::Ended(leave) => break leave,
                Progress::Retired(leave) => {
                    // The handle would keep the connection open after its last flow.
                    watched = None;
                    membership.leave(leave);
                }
            },
            pulse = &mut pulse, if beats => match pulse {
                Pulse::Dead(silence) => break LeaveReason::Lost(LinkError::Dead(silence).to_string()),
                Pulse::Confirmed => {
                    watched = None;
                    beats = false;
                    membership.leave(LeaveReason::Closing);
                }
            },
            () = &mut asking, if asks => {
                let step = pool.drain.step();
                asks = step.phase < Phase::Forced;
                asking.set(pool.drain.reached(Phase::Forced));
                if step.phase < Phase::Done {
                    flush = Some(Box::pin(flush_all(watched.clone(), Arc::clone(&shared), step)));
                }
            }
            report = wait_if_some(&mut flush) => {
                flush = None;
                shared.flush_result.set(report);
            }
            () = &mut closing, if membership.left.is_some() => membership.leave(LeaveReason::Closing),
            () = &mut cut => break LeaveReason::Closing,
        }
    };
    shared.flush_result.set(match reason {
        LeaveReason::Closing => FlushReport::Unconfirmed,
        LeaveReason::Asked | LeaveReason::Lost(_) => FlushReport::Lost,
    });
    membership.leave(reason);
}

/// Reports what of this connection's flows is delivered.
async fn flush_all(
    requests: Option<SendRequest<Chunk>>,
    shared: Arc<ConnectionState>,
    step: PhaseStep,
) -> FlushReport {
    if !shared.used.load(Ordering::Relaxed) {
        return FlushReport::delivered();
    }
    match requests {
        Some(requests) => flush::ask(requests, step).await,
        // The host leaves, too: it opens no streams, and delivers without being asked.
        None => FlushReport::HandedOver,
    }
}

/// Waits for a future that may be absent; without one it is never ready.
async fn wait_if_some<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
