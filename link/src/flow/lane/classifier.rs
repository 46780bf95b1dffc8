//! How fast a flow is, told from its bytes and its polls.

use std::time::{Duration, Instant};

/// A flow is bulk when it has moved this much …
const BULK_BYTES: u64 = 1024 * 1024;

/// … in no more polls than this, …
const MAX_BULK_POLLS: u32 = 1024;

/// … and chatty when it has had so many polls, whatever it moved in them, …
const INTERACTIVE_POLLS: u32 = 512;

/// … in less than this.
const WINDOW: Duration = Duration::from_secs(1);

/// What a flow proves to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TrafficClass {
    /// Neither, so far.
    Idle,
    /// Small messages, many of them: how long each takes is what counts.
    Interactive,
    /// As many bytes as there are.
    Bulk,
}

/// Watches a flow. It looks at the clock once for each [`BULK_BYTES`] and for so many [`INTERACTIVE_POLLS`].
#[derive(Debug)]
pub(crate) struct Classifier {
    /// Bytes at which it looks next whether this is bulk.
    next: u64,
    /// When the last [`BULK_BYTES`] was over.
    since: Instant,
    /// Turns since then.
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

    /// Notes a poll of a flow that has `moved` bytes in all. Says the most that it has been.
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

    /// Whether it has been bulk.
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
