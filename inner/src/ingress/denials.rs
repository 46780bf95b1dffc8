//! A host that asks again and again for what it does not get shall not fill the disk with records.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A port's denials are recorded once in this time.
const PAUSE: Duration = Duration::from_secs(30);

/// When each port was last denied. Bounded: there are only so many ports.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<HashMap<NonZeroU16, Instant>>);

impl Denials {
    /// Whether a denial of this port shall be recorded.
    pub(super) fn is_due(&self, port: NonZeroU16, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get(&port) {
            Some(then) if now.saturating_duration_since(*then) < PAUSE => false,
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
        assert!(!denials.is_due(port(1), start + PAUSE / 2));
        assert!(denials.is_due(port(2), start + PAUSE / 2));
        assert!(denials.is_due(port(1), start + PAUSE));
        assert!(!denials.is_due(port(1), start + PAUSE));
    }
}
