//! How many flows may be open at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the flows of every connection that shares it, and refuses those that are too many. The
/// limit can change while flows are open: none is ended by a lower one.
#[derive(Debug)]
pub struct FlowLimit {
    most: AtomicUsize,
    open: AtomicUsize,
}

/// Room for one flow, until it is dropped.
#[derive(Debug)]
pub struct FlowPermit(Arc<FlowLimit>);

impl FlowLimit {
    /// At most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most: AtomicUsize::new(most),
            open: AtomicUsize::new(0),
        }
    }

    /// From now on at most so many.
    pub fn set(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Flows that are open or being opened.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Room for a flow, if there is any.
    pub fn acquire(self: &Arc<Self>) -> Option<FlowPermit> {
        let most = self.most.load(Ordering::Relaxed);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < most).then_some(open + 1)
            })
            .ok()?;
        Some(FlowPermit(Arc::clone(self)))
    }
}

impl Drop for FlowPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_limit_ends_nothing_and_holds_for_the_next() {
        let limit = Arc::new(FlowLimit::new(2));
        let first = limit.acquire().unwrap();
        let second = limit.acquire().unwrap();
        assert!(limit.acquire().is_none());
        limit.set(1);
        assert_eq!(limit.open(), 2);
        drop(first);
        assert!(limit.acquire().is_none(), "one is open");
        drop(second);
        assert!(limit.acquire().is_some());
        limit.set(0);
        assert!(limit.acquire().is_none());
        assert_eq!(limit.open(), 0);
    }
}
