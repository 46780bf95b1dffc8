//! Carries the app's standard output and error to the host, as feeds.
//!
//! A record ends at the end of a line, so that the host can print it at once and a lost link tears
//! no line. A line goes in parts when it is too long, or not ended for [`LINE_TIMEOUT`].

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

/// Bytes of one stream that the host has not written yet. At this limit the app's writes block.
const MAX_PENDING: usize = 1024 * 1024;
/// Bytes of one read.
const READ_SIZE: usize = 64 * 1024;
/// An unfinished line of this length is sent as it is.
const MAX_LINE_PART: usize = 16 * 1024;
/// How long the reader waits for the rest of a line.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// Standard output or standard error of the app.
#[derive(Debug)]
pub(super) struct OutputStream {
    pub(super) feed: Feed,
    reader: JoinHandle<()>,
    stop: CancellationToken,
}

impl OutputStream {
    /// Opens a pipe and starts the task that reads it; the app gets the writing end.
    pub(super) fn open() -> io::Result<(Self, Stdio)> {
        let (reader, writer) = io::pipe()?;
        let receiver = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        let feed = Feed::new(MAX_PENDING);
        let stop = CancellationToken::new();
        let reader = tokio::spawn(read(receiver, feed.clone(), stop.clone()));
        let stream = Self { feed, reader, stop };
        Ok((stream, writer.into()))
    }

    /// Makes the reader stop at the end of what is in the pipe now.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the pipe is read to its end and the feed has ended. May be called again.
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
        let limit = if buffer.is_empty() {
            Duration::MAX
        } else {
            LINE_TIMEOUT
        };
        buffer.reserve(READ_SIZE);
        let read = tokio::select! {
            biased;
            read = timeout(limit, pipe.read_buf(&mut buffer)) => read,
            () = stop.cancelled() => {
                while matches!(pipe.try_read_buf(&mut buffer), Ok(count) if count > 0) {
                    write_all(&feed, &mut buffer).await;
                    buffer.reserve(READ_SIZE);
                }
                Ok(Ok(0))
            }
        };
        match read {
            Ok(Ok(count)) if count > 0 => {
                let whole = whole_lines(&buffer);
                write(&feed, buffer.split_to(whole).freeze()).await;
            }
            // The rest of the line is late: send what there is.
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
        // A copy, as a slice would keep the whole buffer alive.
        feed.write(now(), Bytes::copy_from_slice(&bytes)).await;
    }
}

/// The number of bytes to send: the whole lines, or everything when a line is too long.
fn whole_lines(buffer: &[u8]) -> usize {
    match buffer.iter().rposition(|&byte| byte == b'\n') {
        Some(last) if buffer.len() - last <= MAX_LINE_PART => last + 1,
        None if buffer.len() < MAX_LINE_PART => 0,
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
        let mut long = vec![b'x'; MAX_LINE_PART];
        assert_eq!(whole_lines(&long), MAX_LINE_PART);
        long.insert(0, b'\n');
        assert_eq!(whole_lines(&long), MAX_LINE_PART + 1);
    }
}
