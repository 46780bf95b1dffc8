//! Where a flow finds the lane that somebody else opens for it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::sync::OwnedSemaphorePermit;

use crate::transport::lane_threads::LaneThreads;

/// A lane that was opened, not yet in the hands of its flow.
#[derive(Debug)]
pub(crate) struct OpenedLane {
    pub(crate) socket: OwnedFd,
    /// Where the other half's direction has moved over, if it has said so already.
    pub(crate) offset: Option<u64>,
    pub(crate) permits: LanePermits,
    pub(crate) threads: Arc<LaneThreads>,
}

/// A lane's place among all of them, and a guest's interactive lane's among those. Held to be dropped.
#[derive(Debug)]
pub(crate) struct LanePermits(
    #[allow(dead_code)] pub(crate) OwnedSemaphorePermit,
    #[allow(dead_code)] pub(crate) Option<OwnedSemaphorePermit>,
);

/// One flow's place for a lane.
#[derive(Debug, Default)]
pub(crate) struct LaneSlot {
    waker: AtomicWaker,
    lane: Mutex<Option<OpenedLane>>,
}

impl LaneSlot {
    /// Gives the flow its lane. The first one counts: a lane that comes later is closed.
    pub(crate) fn put(&self, lane: OpenedLane) {
        let mut place = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(lane);
        }
        drop(place);
        self.waker.wake();
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<OpenedLane> {
        self.waker.register(cx.waker());
        let mut place = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        match place.take() {
            Some(lane) => Poll::Ready(lane),
            None => Poll::Pending,
        }
    }
}
