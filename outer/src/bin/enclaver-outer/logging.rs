//! The log of the host half, on standard error.
//!
//! When that is the journal, it has times of its own, and each line says how much it matters, so
//! that `journalctl -p warning` works.

use std::io;
use std::io::{IsTerminal, Stderr, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Changes what is logged.
pub(crate) struct LogFilter(reload::Handle<EnvFilter, Registry>);

/// Logs from this level on.
pub(crate) fn to_stderr(level: &str) -> LogFilter {
    let (reloadable, handle) = reload::Layer::new(filter(level));
    let lines = if stderr_is_the_journal() {
        fmt::layer()
            .without_time()
            .with_ansi(false)
            .with_writer(JournalWriter)
            .boxed()
    } else {
        fmt::layer()
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .boxed()
    };
    tracing_subscriber::registry()
        .with(reloadable)
        .with(lines)
        .init();
    LogFilter(handle)
}

impl LogFilter {
    /// Logs from this level on.
    pub(crate) fn set(&self, level: &str) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::warn!(%error, level, "can't change what is logged");
        }
    }
}

/// h2 has an event for each frame, which is nobody's level. The AWS SDK tells of each step, and traces
/// answers with credentials in them.
const QUIET: &str = "h2=warn,hickory_proto=warn,hyper_util=warn,aws_=warn";

fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("{level},{QUIET}"))
}

/// By what systemd tells its services (systemd.exec(5), JOURNAL_STREAM).
fn stderr_is_the_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr())
        .is_ok_and(|stat| stream.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

/// Lines with the priority before them (sd-daemon(3)).
struct JournalWriter;

struct JournalLine(&'static str, Stderr);

impl<'a> MakeWriter<'a> for JournalWriter {
    type Writer = JournalLine;

    fn make_writer(&'a self) -> JournalLine {
        JournalLine("<6>", io::stderr())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> JournalLine {
        JournalLine(priority(*metadata.level()), io::stderr())
    }
}

impl Write for JournalLine {
    /// Called once for each event, with all of it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut line = Vec::with_capacity(self.0.len() + event.len());
        line.extend_from_slice(self.0.as_bytes());
        line.extend_from_slice(event);
        self.1.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}
