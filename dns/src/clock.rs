//! The one place where the time is read.

use std::time::Instant;

/// Now, by the runtime's clock, so that tests can stop it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
