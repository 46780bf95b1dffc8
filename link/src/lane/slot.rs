//! Where a flow finds the lane that somebody else opens for it.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use super::Opened;

/// One flow's place for a lane.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    waker: AtomicWaker,
    lane: Mutex<Option<Opened>>,
}

impl Slot {
    /// Gives the flow its lane. The first one counts: a lane that comes later is closed.
    pub(crate) fn put(&self, lane: Opened) {
        let mut place = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(lane);
        }
        drop(place);
        self.waker.wake();
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Opened> {
        self.waker.register(cx.waker());
        let mut place = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        match place.take() {
            Some(lane) => Poll::Ready(lane),
            None => Poll::Pending,
        }
    }
}
