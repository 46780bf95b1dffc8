//! The log of the daemon, on standard error.
//!
//! In the journal, lines have a priority and no time: the journal adds its time, and
//! `journalctl -p warning` works.

use std::io;
use std::io::{IsTerminal, Stderr, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// A handle that changes the level of the log.
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

/// Caps for other crates' logs. h2 logs every frame; the AWS SDK traces answers with credentials.
const CRATE_LEVELS: &str = "h2=warn,hickory_proto=warn,hyper_util=warn,aws_=warn";

fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("{level},{CRATE_LEVELS}"))
}

/// Whether standard error is the journal, by JOURNAL_STREAM (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr())
        .is_ok_and(|stat| stream.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

/// Writes each line with its priority in front (sd-daemon(3)).
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
    /// Writes one event. tracing-subscriber calls this once for each.
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
