//! The program's standard output and error, as feeds.
//!
//! Records end at the end of a line, so that the host can print them as they come and a lost link
//! tears no line. A line that is too long, or that is not ended for a while, goes in parts.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use odyn_link::{Feed, now};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What the host has not written yet of one stream, in bytes. When it is full, the program waits.
const LIMIT: usize = 1024 * 1024;
/// Read at once.
const READ: usize = 64 * 1024;
/// A line that is not ended goes in parts of this length.
const PART: usize = 16 * 1024;
/// How long the rest of a line is waited for.
const LINE_PATIENCE: Duration = Duration::from_secs(1);

/// One stream of the program.
#[derive(Debug)]
pub(super) struct OutputStream {
    pub(super) feed: Feed,
    reader: JoinHandle<()>,
    stop: CancellationToken,
}

impl OutputStream {
    /// A pipe and the task that reads it; the program gets the other end.
    pub(super) fn open() -> io::Result<(Self, Stdio)> {
        let (reader, writer) = io::pipe()?;
        let receiver = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        let feed = Feed::new(LIMIT);
        let stop = CancellationToken::new();
        let reader = tokio::spawn(read(receiver, feed.clone(), stop.clone()));
        let stream = Self { feed, reader, stop };
        Ok((stream, writer.into()))
    }

    /// No more is waited for than what is in the pipe already.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until everything is read and the feed has ended. May be asked again.
    pub(super) async fn read_to_end(&mut self) {
        if !self.reader.is_finished() {
            let _ = (&mut self.reader).await;
        }
    }
}

/// Reads until every writer has closed its end.
async fn read(mut pipe: pipe::Receiver, feed: Feed, stop: CancellationToken) {
    let mut buffer = BytesMut::new();
    loop {
        let patience = if buffer.is_empty() {
            Duration::MAX
        } else {
            LINE_PATIENCE
        };
        buffer.reserve(READ);
        let read = tokio::select! {
            biased;
            read = timeout(patience, pipe.read_buf(&mut buffer)) => read,
            () = stop.cancelled() => {
                while matches!(pipe.try_read_buf(&mut buffer), Ok(count) if count > 0) {
                    write_all(&feed, &mut buffer).await;
                    buffer.reserve(READ);
                }
                Ok(Ok(0))
            }
        };
        match read {
            Ok(Ok(count)) if count > 0 => {
                let whole = whole_lines(&buffer);
                write(&feed, buffer.split_to(whole).freeze()).await;
            }
            // The line takes its time: what there is of it goes now.
            Err(_) => write_all(&feed, &mut buffer).await,
            Ok(Ok(_)) | Ok(Err(_)) => {
                write_all(&feed, &mut buffer).await;
                return feed.end();
            }
        }
    }
}

async fn write_all(feed: &Feed, buffer: &mut BytesMut) {
    write(feed, buffer.split().freeze()).await;
}

async fn write(feed: &Feed, bytes: Bytes) {
    if !bytes.is_empty() {
        // A copy of its own: a part would keep the whole buffer.
        feed.write(now(), Bytes::copy_from_slice(&bytes)).await;
    }
}

/// What can go: up to the last end of a line, or all of a line that is too long.
fn whole_lines(buffer: &[u8]) -> usize {
    match buffer.iter().rposition(|&byte| byte == b'\n') {
        Some(last) if buffer.len() - last <= PART => last + 1,
        None if buffer.len() < PART => 0,
        _ => buffer.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_lines_do() {
        assert_eq!(whole_lines(b"one\ntwo\nthr"), 8);
        assert_eq!(whole_lines(b"no end"), 0);
        let mut long = vec![b'x'; PART];
        assert_eq!(whole_lines(&long), PART);
        long.insert(0, b'\n');
        assert_eq!(whole_lines(&long), PART + 1);
    }
}
