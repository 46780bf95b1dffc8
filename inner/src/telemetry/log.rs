//! odyn-net's own log as a feed. Writing a line never waits: the link itself writes lines.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use odyn_link::{Feed, now};
use tracing_subscriber::fmt::MakeWriter;

/// What the host has not written yet of our log, in bytes.
const LIMIT: usize = 256 * 1024;

/// The log's feed. When it is full, the newest lines are dropped, and a line says how many.
#[derive(Debug, Clone)]
pub struct LogFeed {
    feed: Feed,
    dropped: Arc<AtomicU64>,
}

impl Default for LogFeed {
    fn default() -> Self {
        Self {
            feed: Feed::new(LIMIT),
            dropped: Arc::default(),
        }
    }
}

impl LogFeed {
    /// The feed, to be carried to the host.
    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Says how many lines were dropped, if that has room now.
    pub fn confess(&self) {
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
        self.confess();
        if !self.feed.try_write(now(), &Bytes::copy_from_slice(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// tracing-subscriber writes each event in one call.
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
        assert!(pending.bytes <= LIMIT && pending.records < 300);
        let dropped = log.dropped.load(Ordering::Relaxed);
        assert_eq!(dropped, 1000 - pending.records as u64);
        log.confess();
        assert_eq!(log.dropped.load(Ordering::Relaxed), dropped, "no room yet");
    }
}
