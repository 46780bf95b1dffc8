//! The log of the host half, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, reload};

/// Changes what is logged.
pub(crate) struct Level(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

/// Logs from this level on.
pub(crate) fn to_stderr(level: &str) -> Level {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    Level(Box::new(move |filter| handle.reload(filter)))
}

impl Level {
    /// Logs from this level on.
    pub(crate) fn set(&self, level: &str) {
        if let Err(error) = (self.0)(filter(level)) {
            tracing::warn!(%error, level, "can't change what is logged");
        }
    }
}

/// h2 has an event for each frame, which is nobody's level.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("{level},h2=warn,hickory_proto=warn"))
}
