//! Sends odyn-net's own log to the host, as a feed.
//!
//! Writing a line never waits, for the link itself writes lines.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use odyn_link::{Feed, now};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of the log that the host has not written yet.
const MAX_PENDING: usize = 256 * 1024;

/// The log as a feed. A full feed drops the newest lines, and a later line counts them.
#[derive(Debug, Clone)]
pub struct LogFeed {
    feed: Feed,
    dropped: Arc<AtomicU64>,
}

impl Default for LogFeed {
    fn default() -> Self {
        Self {
            feed: Feed::new(MAX_PENDING),
            dropped: Arc::default(),
        }
    }
}

impl LogFeed {
    /// The feed that the link carries to the host.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Writes how many lines were dropped, if there is room for that line.
    pub fn report_dropped(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped == 0 {
            return;
        }
        let line =
            format!("{dropped} lines of odyn-net's log were dropped: the host did not take them\n");
        if !self.feed.try_write(now(), &Bytes::from(line)) {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn line(&self, line: &[u8]) {
        self.report_dropped();
        if !self.feed.try_write(now(), &Bytes::copy_from_slice(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One call writes one event: tracing-subscriber never splits one.
impl io::Write for &LogFeed {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFeed {
    type Writer = &'a LogFeed;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_full_log_drops_lines_and_says_so() {
        let log = LogFeed::default();
        let line = [b'x'; 1000];
        for _ in 0..1000 {
            (&log).write_all(&line).unwrap();
        }
        let pending = log.feed.pending();
        assert!(pending.bytes <= MAX_PENDING && pending.records < 300);
        let dropped = log.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped, 1000 - pending.records as u64);
        log.report_dropped();
        assert_eq!(log.dropped.load(Ordering::Relaxed), dropped, "no room yet");
    }
}
