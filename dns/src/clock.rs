//! The only place that reads the time.

use std::time::Instant;

/// The time by the runtime's clock, which tests can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
