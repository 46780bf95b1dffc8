//! One thread writes standard output for all guests, because a write may block.

use std::{io, thread};

use odyn_proto::wire::feed::FeedRecord;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::RETRY;
use super::lines::LinePrefix;

/// Most texts that wait to be written. Each feed waits for its own.
const QUEUE: usize = 16;
/// Length at which a text is handed to the thread, in bytes.
const TEXT_LEN: usize = 64 * 1024;
/// What a pipe takes whole or not at all (PIPE_BUF).
///
/// Lines that fit are never torn, even when this process is killed.
const PIPE_BUF: usize = 4096;

/// A handle of the thread that writes the lines of all guests.
#[derive(Debug, Clone)]
pub(crate) struct StdoutWriter {
    queue: mpsc::Sender<WriteJob>,
}

/// Lines to write, and the signal that they are written.
#[derive(Debug)]
struct WriteJob {
    text: String,
    written: oneshot::Sender<()>,
}

impl StdoutWriter {
    pub(super) fn start(out: impl io::Write + Send + 'static) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("guest-logs".into())
            .spawn(move || run(jobs, out))?;
        Ok(Self { queue })
    }

    pub(super) async fn write(&self, records: &[FeedRecord], style: &LinePrefix) {
        let mut text = String::new();
        for record in records {
            for line in style.lines(record) {
                text.push_str(&line);
                if text.len() >= TEXT_LEN {
                    self.submit(std::mem::take(&mut text)).await;
                }
            }
        }
        if !text.is_empty() {
            self.submit(text).await;
        }
    }

    async fn submit(&self, text: String) {
        let (written, done) = oneshot::channel();
        // The thread ends when the last handle is gone, not before.
        if self.queue.send(WriteJob { text, written }).await.is_ok() {
            let _ = done.await;
        }
    }
}

fn run(mut jobs: mpsc::Receiver<WriteJob>, mut out: impl io::Write) {
    while let Some(job) = jobs.blocking_recv() {
        let mut rest = job.text.as_bytes();
        while !rest.is_empty() {
            let (part, more) = rest.split_at(whole_lines(rest));
            write(&mut out, part);
            rest = more;
        }
        let _ = job.written.send(());
    }
}

/// The length of as many whole lines as a pipe takes at once; of one line at least.
fn whole_lines(text: &[u8]) -> usize {
    let window = &text[..text.len().min(PIPE_BUF)];
    let newline = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte == b'\n');
    if let Some(last) = newline(window) {
        return last + 1;
    }
    let first = text.iter().position(|&byte| byte == b'\n');
    first.map_or(text.len(), |first| first + 1)
}

/// Writes all bytes. Tries again after errors, without limit.
fn write(out: &mut impl io::Write, mut bytes: &[u8]) {
    let mut said = false;
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(count) if count > 0 => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => {
                if !said {
                    warn!(result = ?other, "can't write the guests' logs to standard output: they wait");
                    said = true;
                }
                thread::sleep(RETRY);
            }
        }
    }
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;

    use super::*;

    /// Keeps what is written, one entry for each call.
    #[derive(Clone, Default)]
    struct Calls(Arc<Mutex<Vec<Vec<u8>>>>);

    impl io::Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_are_written_whole() {
        let calls = Calls::default();
        let writer = StdoutWriter::start(calls.clone()).unwrap();
        let mut text = "a line of some length\n".repeat(2000);
        text.push_str(&"x".repeat(9000));
        text.push('\n');
        let record = FeedRecord {
            at: 0,
            bytes: Bytes::from(text),
        };
        writer
            .write(&[record], &LinePrefix::new("a", "stdout"))
            .await;
        let calls = calls.0.lock().unwrap();
        assert!(calls.len() > 10);
        for call in calls.iter() {
            assert!(call.ends_with(b"\n"));
            let lines = call.iter().filter(|&&byte| byte == b'\n').count();
            assert!(call.len() <= PIPE_BUF || lines == 1);
        }
        let lines: usize = calls
            .iter()
            .map(|call| call.iter().filter(|&&byte| byte == b'\n').count())
            .sum();
        assert_eq!(lines, 2001);
    }
}
