//! Warnings that a client can cause must not fill the log.

use std::time::{Duration, Instant};

/// Least time between two warnings of one listener.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// When a listener warned last.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    last: Option<Instant>,
}

impl Warnings {
    /// Whether a warning may be logged now; if so, it counts as logged.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= WARNING_INTERVAL);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_an_interval() {
        let (mut warnings, start) = (Warnings::default(), Instant::now());
        assert!(warnings.is_due(start));
        assert!(!warnings.is_due(start + WARNING_INTERVAL / 2));
        assert!(warnings.is_due(start + WARNING_INTERVAL));
    }
}
