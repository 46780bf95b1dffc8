//! Hands a lane that was opened to the flow that it is for.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::sync::OwnedSemaphorePermit;

use crate::transport::lane_threads::LaneThreads;

/// A lane that is open and not yet used by its flow.
#[derive(Debug)]
pub(crate) struct OpenedLane {
    pub(crate) socket: OwnedFd,
    /// Offset at which the peer's direction moves to the lane, if the peer has sent it already.
    pub(crate) offset: Option<u64>,
    pub(crate) permits: LanePermits,
    pub(crate) threads: Arc<LaneThreads>,
}

/// Permits of the lane, and of an interactive lane of a guest. Held to be dropped.
#[derive(Debug)]
pub(crate) struct LanePermits(
    #[allow(dead_code)] pub(crate) OwnedSemaphorePermit,
    #[allow(dead_code)] pub(crate) Option<OwnedSemaphorePermit>,
);

/// A place for one flow's lane.
#[derive(Debug, Default)]
pub(crate) struct LaneSlot {
    waker: AtomicWaker,
    lane: Mutex<Option<OpenedLane>>,
}

impl LaneSlot {
    /// Gives the flow its lane. Only the first counts: a later one is closed.
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
