//! Classifies a flow by its bytes and its polls.

use std::time::{Duration, Instant};

/// A flow that moves this many bytes is bulk …
const BULK_BYTES: u64 = 1024 * 1024;

/// … in at most this many polls. …
const MAX_BULK_POLLS: u32 = 1024;

/// A flow with this many polls is interactive, whatever it moves in them. …
const INTERACTIVE_POLLS: u32 = 512;

/// … Both count within this time.
const WINDOW: Duration = Duration::from_secs(1);

/// The traffic of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TrafficClass {
    /// Neither interactive nor bulk, so far.
    Idle,
    /// Many small messages, whose latency counts.
    Interactive,
    /// As many bytes as the link carries.
    Bulk,
}

/// Classifies one flow. It reads the clock once for each [`BULK_BYTES`], and once for so many
/// [`INTERACTIVE_POLLS`].
#[derive(Debug)]
pub(crate) struct Classifier {
    /// Bytes at which the classifier next checks for bulk.
    next: u64,
    /// When the last [`BULK_BYTES`] was complete.
    since: Instant,
    /// Polls since then.
    bulk_polls: u32,
    polls: u32,
    polls_since: Instant,
    class: TrafficClass,
}

impl Classifier {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            next: BULK_BYTES,
            since: now,
            bulk_polls: 0,
            polls: 0,
            polls_since: now,
            class: TrafficClass::Idle,
        }
    }

    /// Counts a poll of a flow that has `moved` bytes in all. Returns the highest class so far.
    pub(crate) fn poll(&mut self, moved: u64) -> TrafficClass {
        self.bulk_polls = self.bulk_polls.saturating_add(1);
        if moved >= self.next {
            let now = Instant::now();
            if now.duration_since(self.since) < WINDOW && self.bulk_polls <= MAX_BULK_POLLS {
                self.class = TrafficClass::Bulk;
            }
            self.since = now;
            self.bulk_polls = 0;
            self.next = moved + BULK_BYTES;
        }
        self.polls += 1;
        if self.polls >= INTERACTIVE_POLLS {
            let now = Instant::now();
            if now.duration_since(self.polls_since) < WINDOW {
                self.class = self.class.max(TrafficClass::Interactive);
            }
            self.polls_since = now;
            self.polls = 0;
        }
        self.class
    }

    /// Whether the flow has been bulk.
    pub(crate) fn is_bulk(&self) -> bool {
        self.class == TrafficClass::Bulk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bytes_are_bulk_and_many_turns_chatty() {
        let mut bulk = Classifier::new();
        assert_eq!(bulk.poll(BULK_BYTES - 1), TrafficClass::Idle);
        assert_eq!(bulk.poll(BULK_BYTES), TrafficClass::Bulk);
        assert_eq!(bulk.poll(BULK_BYTES), TrafficClass::Bulk);

        let mut chatty = Classifier::new();
        for poll in 1..INTERACTIVE_POLLS {
            assert_eq!(chatty.poll(u64::from(poll)), TrafficClass::Idle);
        }
        assert_eq!(
            chatty.poll(u64::from(INTERACTIVE_POLLS)),
            TrafficClass::Interactive
        );
        assert_eq!(chatty.poll(BULK_BYTES), TrafficClass::Bulk);
    }

    #[test]
    fn many_small_messages_are_not_bulk() {
        let mut chatty = Classifier::new();
        for poll in 1..=4 * BULK_BYTES / 512 {
            assert!(chatty.poll(poll * 512) < TrafficClass::Bulk);
        }
    }

    #[test]
    fn slow_flows_are_quiet() {
        let mut slow = Classifier::new();
        let earlier = Instant::now().checked_sub(2 * WINDOW);
        (slow.since, slow.polls_since) = (earlier.unwrap(), earlier.unwrap());
        assert_eq!(slow.poll(BULK_BYTES), TrafficClass::Idle);
        for _ in 1..INTERACTIVE_POLLS {
            assert_eq!(slow.poll(BULK_BYTES), TrafficClass::Idle);
        }
    }
}
