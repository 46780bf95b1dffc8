//! What a drain waits for, one guard each.

use std::sync::atomic::Ordering;

use crate::drain::phase::Drain;

/// Something that the host half has yet to get: flushing does not begin while one of these lives.
#[derive(Debug)]
pub struct DrainGuard(pub(super) Drain);

/// A flow that is in no pool: the drain is not over while one of these lives.
#[derive(Debug)]
pub(crate) struct OpenFlowGuard(pub(super) Drain);

impl Drop for OpenFlowGuard {
    fn drop(&mut self) {
        let shared = &self.0.0;
        if shared.open_flow.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.no_open_flows.notify_waiters();
        }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        let shared = &self.0.0;
        if shared.drain_guard.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.idle.notify_waiters();
        }
    }
}
