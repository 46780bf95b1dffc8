//! Logs when the link goes down and comes back, with a limited rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::pool::state::LinkState;

/// Lines that may follow each other without a pause.
const MAX_BURST: u32 = 6;

/// Interval of the lines after a burst. A host that accepts and drops connections makes the link go
/// up and down many times a second.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Logs changes of the link's state until the pool closes. `changes` counts them. The last line
/// says the present state: changes that come too fast are left out and counted.
pub(super) async fn report(
    name: String,
    mut state: watch::Receiver<LinkState>,
    changes: Arc<AtomicU64>,
    closing: impl Future<Output = ()>,
) {
    let mut budget = Budget::new(Instant::now());
    let mut said = 0;
    tokio::pin!(closing);
    loop {
        let next = async {
            let changed = state.changed().await;
            sleep_until(budget.free_at()).await;
            changed
        };
        let is_over = tokio::select! {
            biased;
            () = &mut closing => true,
            changed = next => changed.is_err(),
        };
        if is_over {
            return;
        }
        // In this order: a change between the two is logged now, and counted with the next.
        let seen = changes.load(Ordering::Relaxed);
        let now = state.borrow_and_update().clone();
        if seen == said {
            continue;
        }
        let skipped = seen - said - 1;
        said = seen;
        budget.take(Instant::now());
        match now {
            LinkState::Up => info!(name, skipped, "link is up"),
            LinkState::Down(reason) => warn!(name, reason, skipped, "link is down"),
        }
    }
}

/// Limits the lines: a full bucket at first, which refills at [`LINE_INTERVAL`].
struct Budget {
    /// When the bucket will be full.
    full_at: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// When the bucket has room for a line.
    fn free_at(&self) -> Instant {
        self.full_at
            .checked_sub(LINE_INTERVAL * (MAX_BURST - 1))
            .unwrap_or(self.full_at)
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + LINE_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_pace() {
        let start = Instant::now() + Duration::from_secs(3600);
        let mut budget = Budget::new(start);
        for line in 0..MAX_BURST {
            assert!(budget.free_at() <= start, "line {line}");
            budget.take(start);
        }
        assert_eq!(budget.free_at(), start + LINE_INTERVAL);
        let later = start + LINE_INTERVAL * MAX_BURST;
        for _ in 0..MAX_BURST {
            assert!(budget.free_at() <= later);
            budget.take(later);
        }
        assert!(budget.free_at() > later);
    }
}
