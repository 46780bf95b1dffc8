//! The line that `systemctl status` shows.

use std::time::{Duration, Instant};

use enclaver_outer::Counts;

/// What the service is doing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Phase {
    /// Not ready yet by what the operator chose.
    Waiting,
    Serving,
    Draining {
        since: Instant,
        until: Instant,
    },
}

/// The line.
pub(crate) fn line(
    phase: Phase,
    counts: Counts,
    endpoints: &str,
    complaint: Option<&str>,
    now: Instant,
) -> String {
    let mut line = match phase {
        Phase::Waiting => format!("not ready: waiting for a guest on {endpoints}"),
        Phase::Serving if counts.guests == 0 => {
            format!("no guest linked; listening on {endpoints}")
        }
        Phase::Serving => format!(
            "{} linked by {}; {} open",
            plural(counts.guests, "guest"),
            plural(counts.connections, "connection"),
            plural(counts.flows, "flow"),
        ),
        Phase::Draining { since, until } => format!(
            "draining for {} s: {} of {} open, cut in {} s",
            seconds(now.saturating_duration_since(since)),
            plural(counts.flows, "flow"),
            plural(counts.guests, "guest"),
            seconds(until.saturating_duration_since(now)),
        ),
    };
    if let Some(complaint) = complaint {
        line.push_str("; the last reload failed, the settings before it hold: ");
        line.push_str(complaint);
    }
    line
}

fn plural(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Whole seconds, up: "0 s" means that the time is over.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(guests: usize, connections: usize, flows: usize) -> Counts {
        let mut counts = Counts::default();
        counts.guests = guests;
        counts.connections = connections;
        counts.flows = flows;
        counts
    }

    #[test]
    fn lines() {
        let now = Instant::now();
        let draining = Phase::Draining {
            since: now,
            until: now + Duration::from_secs(30),
        };
        let later = now + Duration::from_millis(2_500);
        for (phase, counts, complaint, now, wanted) in [
            (
                Phase::Waiting,
                counts(0, 0, 0),
                None,
                now,
                "not ready: waiting for a guest on vsock://any:1",
            ),
            (
                Phase::Serving,
                counts(0, 0, 0),
                None,
                now,
                "no guest linked; listening on vsock://any:1",
            ),
            (
                Phase::Serving,
                counts(1, 4, 1),
                None,
                now,
                "1 guest linked by 4 connections; 1 flow open",
            ),
            (
                Phase::Serving,
                counts(0, 0, 0),
                Some("outer.yaml:1:1: no"),
                now,
                "no guest linked; listening on vsock://any:1; the last reload failed, the settings before it hold: outer.yaml:1:1: no",
            ),
            (
                draining,
                counts(2, 8, 3),
                None,
                later,
                "draining for 3 s: 3 flows of 2 guests open, cut in 28 s",
            ),
        ] {
            assert_eq!(line(phase, counts, "vsock://any:1", complaint, now), wanted);
        }
    }
    #[test]
    fn whoever_sees_one_at_night_finds_it_in_the_documentation() {
        let text = include_str!("../../docs/operations.md");
        for part in [
            "not ready: waiting for a guest on ",
            "no guest linked; listening on ",
            " guests linked by 8 connections; 14 flows open",
            "draining for 3 s: 3 flows of 2 guests open, cut in 28 s",
            "; the last reload failed, the settings before it hold: ",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }
}
