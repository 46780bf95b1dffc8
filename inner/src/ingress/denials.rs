//! Limits the audit records that a host can cause with denied ports.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A port's denials are recorded once in this interval.
const RECORD_INTERVAL: Duration = Duration::from_secs(30);

/// The time of each port's last recorded denial. Bounded by the number of ports.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<HashMap<NonZeroU16, Instant>>);

impl Denials {
    /// Whether to record a denial of this port now.
    pub(super) fn is_due(&self, port: NonZeroU16, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get(&port) {
            Some(then) if now.saturating_duration_since(*then) < RECORD_INTERVAL => false,
            _ => {
                last.insert(port, now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_in_a_while_for_each_port() {
        let denials = Denials::default();
        let port = |number| NonZeroU16::new(number).unwrap();
        let start = Instant::now();
        assert!(denials.is_due(port(1), start));
        assert!(!denials.is_due(port(1), start + RECORD_INTERVAL / 2));
        assert!(denials.is_due(port(2), start + RECORD_INTERVAL / 2));
        assert!(denials.is_due(port(1), start + RECORD_INTERVAL));
        assert!(!denials.is_due(port(1), start + RECORD_INTERVAL));
    }
}
