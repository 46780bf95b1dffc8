//! The status line that `systemctl status` shows.

use std::time::{Duration, Instant};

use enclaver_outer::{Counts, States};
use odyn_link::drain::{Phase, PhaseStep};

use crate::cli::ReadyWhen;

/// The parts of the status line.
#[derive(Debug)]
pub(crate) struct StatusLine<'a> {
    pub(crate) drain: PhaseStep,
    /// What the daemon waits for before it is ready.
    pub(crate) waiting: Option<ReadyWhen>,
    pub(crate) counts: Counts,
    pub(crate) states: States,
    pub(crate) endpoints: &'a str,
    /// Why the last reload failed.
    pub(crate) reload_error: Option<&'a str>,
}

impl StatusLine<'_> {
    /// The status line at `now`.
    pub(crate) fn line(&self, now: Instant) -> String {
        let (endpoints, counts) = (self.endpoints, self.counts);
        let guests = counts.guests.max(self.states.linked);
        let mut line = match (self.drain.phase, self.waiting) {
            (Phase::Running, Some(ReadyWhen::Running)) if guests > 0 => format!(
                "not ready: waiting for an app to run; {} linked",
                plural(guests, "guest")
            ),
            (Phase::Running, Some(_)) => format!("not ready: waiting for a guest on {endpoints}"),
            (Phase::Running, None) if guests == 0 => {
                format!("no guest linked; listening on {endpoints}")
            }
            (Phase::Running, None) => format!(
                "{} linked{} by {}; {} open",
                plural(guests, "guest"),
                detail(self.states),
                plural(counts.connections, "connection"),
                plural(counts.flows, "flow"),
            ),
            _ => format!(
                "draining for {} s: {} of {} open, cut in {} s",
                seconds(now.saturating_duration_since(self.drain.since)),
                plural(counts.flows, "flow"),
                plural(guests, "guest"),
                seconds(self.drain.rest(now)),
            ),
        };
        if let Some(reload_error) = self.reload_error {
            line.push_str("; the last reload failed, the settings before it hold: ");
            line.push_str(reload_error);
        }
        line
    }
}

/// How many of the linked guests run or drain, in brackets.
fn detail(states: States) -> String {
    let said = [(states.running, "running"), (states.draining, "draining")]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect::<Vec<_>>();
    match said.is_empty() {
        true => String::new(),
        false => format!(" ({})", said.join(", ")),
    }
}

fn plural(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Whole seconds, rounded up, so that "0 s" means that the time is over.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use odyn_link::drain::Trigger;

    use super::*;

    fn counts(guests: usize, connections: usize, flows: usize) -> Counts {
        let mut counts = Counts::default();
        counts.guests = guests;
        counts.connections = connections;
        counts.flows = flows;
        counts
    }

    fn states(linked: usize, running: usize, draining: usize) -> States {
        let mut states = States::default();
        states.linked = linked;
        states.running = running;
        states.draining = draining;
        states
    }

    #[test]
    fn lines() {
        let now = Instant::now();
        let drain = Trigger::default();
        let serving = (drain.watch().step(), None);
        let waiting = |when| (serving.0, Some(when));
        drain.advance(Phase::Draining, now, Duration::from_secs(30));
        let draining = (drain.watch().step(), None);
        let later = now + Duration::from_millis(2_500);
        let unlinked = (counts(0, 0, 0), states(0, 0, 0));
        let running = waiting(ReadyWhen::Running);
        for ((drain, waiting), (counts, states), now, wanted) in [
            (
                waiting(ReadyWhen::Linked),
                unlinked,
                now,
                "not ready: waiting for a guest on vsock://any:1",
            ),
            (
                running,
                unlinked,
                now,
                "not ready: waiting for a guest on vsock://any:1",
            ),
            (
                running,
                (counts(1, 4, 0), states(1, 0, 0)),
                now,
                "not ready: waiting for an app to run; 1 guest linked",
            ),
            (
                serving,
                unlinked,
                now,
                "no guest linked; listening on vsock://any:1",
            ),
            (
                serving,
                (counts(1, 4, 1), states(0, 0, 0)),
                now,
                "1 guest linked by 4 connections; 1 flow open",
            ),
            (
                serving,
                (counts(3, 12, 14), states(3, 2, 1)),
                now,
                "3 guests linked (2 running, 1 draining) by 12 connections; 14 flows open",
            ),
            (
                draining,
                (counts(2, 8, 3), states(2, 2, 0)),
                later,
                "draining for 3 s: 3 flows of 2 guests open, cut in 28 s",
            ),
        ] {
            let mut status = StatusLine {
                drain,
                waiting,
                counts,
                states,
                endpoints: "vsock://any:1",
                reload_error: None,
            };
            assert_eq!(status.line(now), wanted);
            status.reload_error = Some("outer.yaml:1:1: no");
            let reload_error =
                "; the last reload failed, the settings before it hold: outer.yaml:1:1: no";
            assert_eq!(status.line(now), format!("{wanted}{reload_error}"));
        }
    }

    #[test]
    fn every_status_line_is_in_the_documentation() {
        let text = include_str!("../../../../docs/operations.md");
        for part in [
            "not ready: waiting for a guest on ",
            "no guest linked; listening on ",
            "3 guests linked (2 running, 1 draining) by 12 connections; 14 flows open",
            "not ready: waiting for an app to run; 1 guest linked",
            "draining for 3 s: 3 flows of 2 guests open, cut in 28 s",
            "; the last reload failed, the settings before it hold: ",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }
}
