//! Writes lines in a thread, so that a slow disk does not block a worker.
//!
//! A worker blocks only when the queue is full: a record is never dropped.

use std::fs::{File, OpenOptions};
use std::io;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// Lines in the queue, at most.
const QUEUE: usize = 8192;

/// Pause of the thread after a write. Waking the thread for each record would cost a worker more
/// than making the record. A record that arrives in an idle moment is written at once.
const REST: Duration = Duration::from_millis(2);

/// The destination of records.
pub struct Sink(Option<Box<dyn Write + Send>>);

impl Sink {
    /// Discards all records.
    pub fn none() -> Self {
        Self(None)
    }

    /// Standard output.
    pub fn stdout() -> Self {
        Self(Some(Box::new(io::stdout())))
    }

    /// A file: created with mode 0600 if missing, else appended to.
    ///
    /// An unfinished last line, whose writer was killed, gets its end first, so that the next line
    /// stays whole.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn file(path: &Path) -> io::Result<Self> {
        let is_torn = is_torn(path);
        let mut file: File = {
            use std::os::unix::fs::OpenOptionsExt;
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(path)?
        };
        if is_torn {
            file.write_all(b"\n")?;
        }
        Ok(Self(Some(Box::new(file))))
    }
}

/// Whether the last line of a file lacks its end. `false` for what is no file, or cannot be read.
fn is_torn(path: &Path) -> bool {
    let last_byte = || -> io::Result<Option<u8>> {
        // A pipe is not opened: opening could block, and reading would take its content.
        if !path.metadata()?.is_file() {
            return Ok(None);
        }
        let mut file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(None);
        }
        file.seek(SeekFrom::End(-1))?;
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        Ok(Some(byte[0]))
    };
    matches!(last_byte(), Ok(Some(byte)) if byte != b'\n')
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The sending end of the writer thread's queue.
pub struct Writer {
    queue: Option<SyncSender<Message>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(sink: Sink) -> io::Result<Self> {
        let Some(output) = sink.0 else {
            return Ok(Self { queue: None });
        };
        let (queue, messages) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(BufWriter::new(output), &messages))?;
        Ok(Self { queue: Some(queue) })
    }

    /// Whether lines are written anywhere.
    pub(super) fn is_kept(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues a line; blocks while the queue is full.
    pub fn write(&self, line: Vec<u8>) {
        if let Some(queue) = &self.queue {
            // The thread ends only when every sender is gone.
            let _ = queue.send(Message::Line(line));
        }
    }

    /// Waits until all lines queued before this call are written.
    pub fn flush(&self) {
        if let Some(queue) = &self.queue {
            let (done, wait) = sync_channel(1);
            if queue.send(Message::Flush(done)).is_ok() {
                let _ = wait.recv();
            }
        }
    }
}

fn write_all(mut output: BufWriter<impl Write>, messages: &Receiver<Message>) {
    let mut failing = false;
    let mut has_rested = true;
    loop {
        let message = match messages.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Empty) if !has_rested => {
                report(output.flush(), &mut failing);
                std::thread::sleep(REST);
                has_rested = true;
                continue;
            }
            Err(TryRecvError::Empty) => match messages.recv() {
                Ok(message) => message,
                Err(_) => return,
            },
            Err(TryRecvError::Disconnected) => {
                report(output.flush(), &mut failing);
                return;
            }
        };
        has_rested = false;
        match message {
            Message::Line(line) => report(output.write_all(&line), &mut failing),
            Message::Flush(done) => {
                report(output.flush(), &mut failing);
                let _ = done.send(());
            }
        }
    }
}

/// Logs once when records are being lost, and once when they are written again.
fn report(result: io::Result<()>, failing: &mut bool) {
    match (result, *failing) {
        (Err(error), false) => {
            *failing = true;
            tracing::error!(%error, "cannot write audit records");
        }
        (Ok(()), true) => *failing = false,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_of_a_killed_writer_is_ended() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (before, after) in [
            ("", "{}\n"),
            ("{1}\n", "{1}\n{}\n"),
            ("{1}\n{2", "{1}\n{2\n{}\n"),
        ] {
            std::fs::write(file.path(), before).unwrap();
            let writer = Writer::start(Sink::file(file.path()).unwrap()).unwrap();
            writer.write(b"{}\n".to_vec());
            writer.flush();
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), after);
        }
    }

    #[test]
    fn a_line_is_in_the_file_without_a_flush() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Writer::start(Sink::file(file.path()).unwrap()).unwrap();
        writer.write(b"{}\n".to_vec());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::fs::read(file.path()).unwrap() != b"{}\n" {
            assert!(std::time::Instant::now() < deadline, "still not there");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
