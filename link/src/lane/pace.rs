//! How fast a flow is, told from its bytes and its turns.

use std::time::{Duration, Instant};

/// A flow is bulk when it has moved this much …
const BURST: u64 = 1024 * 1024;

/// … in no more turns than this, …
const BURST_TURNS: u32 = 1024;

/// … and chatty when it has had so many turns, whatever it moved in them, …
const TURNS: u32 = 512;

/// … in less than this.
const BURST_TIME: Duration = Duration::from_secs(1);

/// What a flow proves to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Nature {
    /// Neither, so far.
    Quiet,
    /// Small messages, many of them: how long each takes is what counts.
    Chatty,
    /// As many bytes as there are.
    Bulk,
}

/// Watches a flow. It looks at the clock once for each [`BURST`] and for so many [`TURNS`].
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes at which it looks next whether this is bulk.
    next: u64,
    /// When the last [`BURST`] was over.
    since: Instant,
    /// Turns since then.
    burst_turns: u32,
    turns: u32,
    turns_since: Instant,
    nature: Nature,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            next: BURST,
            since: now,
            burst_turns: 0,
            turns: 0,
            turns_since: now,
            nature: Nature::Quiet,
        }
    }

    /// Notes a turn of a flow that has `moved` bytes in all. Says the most that it has been.
    pub(crate) fn turn(&mut self, moved: u64) -> Nature {
        self.burst_turns = self.burst_turns.saturating_add(1);
        if moved >= self.next {
            let now = Instant::now();
            if now.duration_since(self.since) < BURST_TIME && self.burst_turns <= BURST_TURNS {
                self.nature = Nature::Bulk;
            }
            self.since = now;
            self.burst_turns = 0;
            self.next = moved + BURST;
        }
        self.turns += 1;
        if self.turns >= TURNS {
            let now = Instant::now();
            if now.duration_since(self.turns_since) < BURST_TIME {
                self.nature = self.nature.max(Nature::Chatty);
            }
            self.turns_since = now;
            self.turns = 0;
        }
        self.nature
    }

    /// Whether it has been bulk.
    pub(crate) fn is_bulk(&self) -> bool {
        self.nature == Nature::Bulk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_bytes_are_bulk_and_many_turns_chatty() {
        let mut bulk = Pace::new();
        assert_eq!(bulk.turn(BURST - 1), Nature::Quiet);
        assert_eq!(bulk.turn(BURST), Nature::Bulk);
        assert_eq!(bulk.turn(BURST), Nature::Bulk);

        let mut chatty = Pace::new();
        for turn in 1..TURNS {
            assert_eq!(chatty.turn(u64::from(turn)), Nature::Quiet);
        }
        assert_eq!(chatty.turn(u64::from(TURNS)), Nature::Chatty);
        assert_eq!(chatty.turn(BURST), Nature::Bulk);
    }

    #[test]
    fn many_small_messages_are_not_bulk() {
        let mut chatty = Pace::new();
        for turn in 1..=4 * BURST / 512 {
            assert!(chatty.turn(turn * 512) < Nature::Bulk);
        }
    }

    #[test]
    fn slow_flows_are_quiet() {
        let mut slow = Pace::new();
        let earlier = Instant::now().checked_sub(2 * BURST_TIME);
        (slow.since, slow.turns_since) = (earlier.unwrap(), earlier.unwrap());
        assert_eq!(slow.turn(BURST), Nature::Quiet);
        for _ in 1..TURNS {
            assert_eq!(slow.turn(BURST), Nature::Quiet);
        }
    }
}
