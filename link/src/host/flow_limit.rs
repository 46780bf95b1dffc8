//! Limits how many flows may be open at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the flows of the connections that share it, and refuses those over the limit. The limit
/// can change while flows are open; a lower one ends none.
#[derive(Debug)]
pub struct FlowLimit {
    most: AtomicUsize,
    open: AtomicUsize,
}

/// Permission for one flow, until it is dropped.
#[derive(Debug)]
pub struct FlowPermit(Arc<FlowLimit>);

impl FlowLimit {
    /// Makes a limit of `most` flows.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most: AtomicUsize::new(most),
            open: AtomicUsize::new(0),
        }
    }

    /// Changes the limit to `most` flows.
    pub fn set(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Flows that are open or being opened.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes room for a flow, if there is any.
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
