//! What a drain waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What a [`Guard`] keeps a drain from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardKind {
    /// The host has yet to get something: [`Phase::Flushing`](super::Phase) does not begin.
    Handover,
    /// A flow is open that is in no pool of connections: the drain is not over.
    Flow,
}

/// Something that must end first: see [`GuardKind`]. It ends when dropped.
#[derive(Debug)]
pub struct Guard(Arc<GuardCount>);

/// Counts guards.
#[derive(Debug, Default)]
pub(crate) struct GuardCount {
    count: AtomicUsize,
    none: Notify,
}

impl GuardCount {
    /// One more.
    pub(crate) fn guard(self: &Arc<Self>) -> Guard {
        self.count.fetch_add(1, Ordering::AcqRel);
        Guard(Arc::clone(self))
    }

    /// Guards that have not ended.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until no guard is left.
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

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn none_waits_for_the_last_guard() {
        let count = Arc::new(GuardCount::default());
        count.none().await;
        let (one, two) = (count.guard(), count.guard());
        let waiting = tokio::spawn({
            let count = Arc::clone(&count);
            async move { count.none().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(two);
        waiting.await.unwrap();
    }
}
