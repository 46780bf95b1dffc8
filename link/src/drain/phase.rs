//! The phases of a drain. Pure: the time is passed in.

use std::time::{Duration, Instant};

/// How far the end of a guest or a host is. A drain passes through the phases in this order. It may
/// skip some and never goes back.
///
/// | phase | begins in the guest | begins on the host | promise |
/// |---|---|---|---|
/// | `Running` | at the start | at the start | |
/// | `Draining` | when the app has ended | when the host is told to stop | guest: accept backlogs are emptied, every byte that the app wrote is read and carried as fast as its peer takes it, and flows that are being opened are opened, also over a link that has to be dialled again. Host: GOAWAY, and open flows go on |
/// | `Flushing` | when nothing is left to carry | never | the guest asks the host on every connection whether all is delivered, and waits for it |
/// | `Forced` | at the deadline, or when told to stop again | the same | guest: asks the host what is delivered, and cuts the flows of which something is not. Host: cuts what is open. Each flow that is cut says how much was undelivered |
/// | `Done` | when every flow has ended and the connections are closed | when every flow has ended | |
///
/// A flow that ends before `Forced` is delivered: the peer's kernel has acknowledged it. The
/// exceptions are in `docs/shutdown.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Flows come and go.
    Running,
    /// No new flows; those that are open are carried on.
    Draining,
    /// All is handed to the host, which confirms its delivery.
    Flushing,
    /// No more time: what is not delivered is cut.
    Forced,
    /// Over.
    Done,
}

/// A phase with its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseStep {
    /// The phase.
    pub phase: Phase,
    /// When the drain began.
    pub since: Instant,
    /// When the phase is over at the latest. Nothing ends `Running` and `Done` by itself.
    pub until: Instant,
}

/// A limit that no drain reaches, and that every clock can add.
const MAX_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

impl PhaseStep {
    /// The first step.
    pub(super) fn running(now: Instant) -> Self {
        Self {
            phase: Phase::Running,
            since: now,
            until: now,
        }
    }

    /// The step to a later phase that begins now and ends within `limit`. `None`: the drain is in
    /// that phase already, or in a later one.
    pub(super) fn advance(self, phase: Phase, now: Instant, limit: Duration) -> Option<Self> {
        (self.phase < phase).then(|| Self {
            phase,
            since: if self.phase == Phase::Running {
                now
            } else {
                self.since
            },
            until: now + limit.min(MAX_LIMIT),
        })
    }

    /// What is left of the time of this phase.
    pub fn rest(self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::{Done, Draining, Flushing, Forced, Running};

    #[test]
    fn phases_go_forward_only_and_may_be_skipped() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        // From, to, the limit in seconds; the phase after it, its end in seconds from the start.
        for (from, to, limit, phase, end) in [
            (Running, Draining, 30, Draining, 31),
            (Running, Forced, 1, Forced, 2),
            (Running, Running, 30, Running, 0),
            (Draining, Draining, 30, Draining, 0),
            (Draining, Flushing, 7, Flushing, 8),
            (Draining, Running, 7, Draining, 0),
            (Flushing, Draining, 7, Flushing, 0),
            (Flushing, Forced, 1, Forced, 2),
            (Forced, Flushing, 7, Forced, 0),
            (Forced, Done, 0, Done, 1),
            (Done, Forced, 1, Done, 0),
            (Done, Done, 1, Done, 0),
        ] {
            let before = PhaseStep {
                phase: from,
                since: start,
                until: start,
            };
            let now = start + second;
            let step = before.advance(to, now, second * limit);
            assert_eq!(step.is_some(), from < to, "{from:?} to {to:?}");
            let after = step.unwrap_or(before);
            assert_eq!(after.phase, phase, "{from:?} to {to:?}");
            assert_eq!(after.until, start + second * end, "{from:?} to {to:?}");
            let begins = from == Running && to > Running;
            assert_eq!(after.since, if begins { now } else { start });
        }
    }

    #[test]
    fn the_rest_of_a_phase_ends_at_nothing_and_no_limit_is_too_long() {
        let start = Instant::now();
        let step = PhaseStep::running(start);
        assert_eq!(step.rest(start), Duration::ZERO);
        let step = step.advance(Draining, start, Duration::from_secs(3));
        let step = step.unwrap();
        for (passed, rest) in [(0, 3), (2, 1), (3, 0), (9, 0)] {
            let now = start + Duration::from_secs(passed);
            assert_eq!(step.rest(now), Duration::from_secs(rest));
        }
        let forced = step.advance(Forced, start, Duration::MAX).unwrap();
        assert_eq!(forced.rest(start), MAX_LIMIT);
    }
}
