//! Logs in files, byte for byte.
//!
//! A small position file beside each log says which record of which run comes next, and how long
//! the log is before it. Bytes beyond that length come from a write that a killed host process did
//! not finish: they are cut off, and the guest sends the records again. So each record is in the
//! file once, whenever the host is killed.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::{fs, io};

use odyn_proto::RunId;
use odyn_proto::wire::feed::FeedRecord;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use super::RETRY;

/// Most writes at the same time: a disk that hangs must not take all blocking threads.
const MAX_WRITES: usize = 32;

/// The log files below one directory.
#[derive(Debug)]
pub(crate) struct LogFiles {
    root: PathBuf,
    open: Mutex<HashMap<PathBuf, Weak<LogFile>>>,
    writes: Arc<Semaphore>,
}

impl LogFiles {
    pub(super) fn new(root: PathBuf) -> io::Result<Self> {
        let failed = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("--guest-logs {}: {error}", root.display()),
            )
        };
        make_directory(&root).map_err(failed)?;
        Ok(Self {
            root,
            open: Mutex::default(),
            writes: Arc::new(Semaphore::new(MAX_WRITES)),
        })
    }

    /// The file of a guest's feed. All users of an open file share it.
    pub(super) fn file(&self, label: &str, feed: &str) -> Arc<LogFile> {
        let path = self.root.join(directory_name(label)).join(feed);
        let mut open = self.open.lock();
        if let Some(file) = open.get(&path).and_then(Weak::upgrade) {
            return file;
        }
        open.retain(|_, file| file.strong_count() > 0);
        let file = Arc::new(LogFile {
            path: path.with_extension("log"),
            position: path.with_file_name(format!(".{feed}.position")),
            writes: Arc::clone(&self.writes),
            state: Mutex::default(),
        });
        open.insert(path, Arc::downgrade(&file));
        file
    }
}

/// The directory of a guest. A leading dot could be `..`, or hide the directory.
///
/// A label has letters, digits and `.-_@` only.
fn directory_name(label: &str) -> String {
    match label.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None => label.to_owned(),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(path)
}

/// One log file and its position file.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    position: PathBuf,
    writes: Arc<Semaphore>,
    state: Mutex<Option<OpenLog>>,
}

#[derive(Debug)]
struct OpenLog {
    file: File,
    position: File,
    /// The run and the next record that an earlier host process left in the position file.
    found: Option<(RunId, u64)>,
}

impl LogFile {
    /// The number of the next record of `run`, if an earlier host process wrote that run.
    pub(super) async fn recover(self: &Arc<Self>, run: RunId) -> Option<u64> {
        self.persist("open", move |file| {
            let mut state = file.state();
            let open = file.opened(&mut state)?;
            Ok(open
                .found
                .and_then(|(of, next)| (of == run).then_some(next)))
        })
        .await
    }

    /// Appends records, the last of which has the number before `next` in `run`.
    pub(super) async fn append(self: &Arc<Self>, records: &[FeedRecord], run: RunId, next: u64) {
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|r| r.bytes.iter().copied())
            .collect();
        let rest = Arc::new(Mutex::new((bytes, 0)));
        self.persist("write", move |file| {
            let mut rest = rest.lock();
            let (bytes, done) = &mut *rest;
            let mut state = file.state();
            if file.is_moved(&state) {
                *state = None;
            }
            let open = file.opened(&mut state)?;
            while *done < bytes.len() {
                match open.file.write(&bytes[*done..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => *done += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let length = open.file.metadata()?.len();
            let position = format!("{run} {next:020} {length:020}\n");
            open.position.write_all_at(position.as_bytes(), 0)
        })
        .await;
    }

    /// Runs `work` on a thread that may block, again and again until it succeeds.
    async fn persist<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        work: impl Fn(&Self) -> io::Result<T> + Send + Sync + 'static,
    ) -> T {
        let work = Arc::new(work);
        let mut said = false;
        loop {
            let (file, work) = (Arc::clone(self), Arc::clone(&work));
            let permit = Arc::clone(&self.writes).acquire_owned().await;
            let result = spawn_blocking(move || work(&file)).await;
            drop(permit);
            let error = match result {
                Ok(Ok(value)) => return value,
                Ok(Err(error)) => error,
                Err(error) => error.into(),
            };
            if !said {
                let path = self.path.display();
                warn!(%path, %error, "can't {what} a guest's log: it waits");
                said = true;
            }
            sleep(RETRY).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, Option<OpenLog>> {
        self.state.lock()
    }

    /// Whether the path no longer leads to the open file, as after logrotate.
    fn is_moved(&self, state: &Option<OpenLog>) -> bool {
        let Some(ours) = state.as_ref().and_then(|open| open.file.metadata().ok()) else {
            return false;
        };
        match fs::metadata(&self.path) {
            Ok(there) => (there.dev(), there.ino()) != (ours.dev(), ours.ino()),
            Err(_) => true,
        }
    }

    /// The open file; opens it if necessary.
    fn opened<'a>(&self, state: &'a mut Option<OpenLog>) -> io::Result<&'a mut OpenLog> {
        let open = match state.take() {
            Some(open) => open,
            None => self.open()?,
        };
        Ok(state.insert(open))
    }

    fn open(&self) -> io::Result<OpenLog> {
        if let Some(directory) = self.path.parent() {
            make_directory(directory)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).mode(0o640).append(true);
        let file = options.open(&self.path)?;
        let mut options = OpenOptions::new();
        options.create(true).mode(0o640).truncate(false);
        let position = options.read(true).write(true).open(&self.position)?;
        let found = io::read_to_string(&position)
            .ok()
            .and_then(|text| parse_position(&text));
        if let Some((.., length)) = found
            && file.metadata()?.len() > length
        {
            file.set_len(length)?;
        }
        Ok(OpenLog {
            file,
            position,
            found: found.map(|(run, next, _)| (run, next)),
        })
    }
}

fn parse_position(text: &str) -> Option<(RunId, u64, u64)> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    let run = words.next()?.parse().ok()?;
    let next = words.next()?.parse().ok()?;
    let length = words.next()?.parse().ok()?;
    words.next().is_none().then_some((run, next, length))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const RUN: RunId = RunId::new([1; 16]);

    fn record(text: &'static str) -> FeedRecord {
        FeedRecord {
            at: 0,
            bytes: Bytes::from_static(text.as_bytes()),
        }
    }

    #[tokio::test]
    async fn what_a_killed_host_was_writing_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/stdout.log");
        let files = LogFiles::new(dir.path().to_owned()).unwrap();
        let file = files.file("a", "stdout");
        assert_eq!(file.recover(RUN).await, None);
        file.append(&[record("one\n"), record("two\n")], RUN, 2)
            .await;
        // Killed in the middle of the third.
        let mut half = OpenOptions::new().append(true).open(&path).unwrap();
        half.write_all(b"thr").unwrap();

        let files = LogFiles::new(dir.path().to_owned()).unwrap();
        let file = files.file("a", "stdout");
        assert_eq!(file.recover(RUN).await, Some(2));
        assert_eq!(file.recover(RunId::new([2; 16])).await, None);
        file.append(&[record("three\n")], RUN, 3).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/log.log");
        let files = LogFiles::new(dir.path().to_owned()).unwrap();
        let file = files.file("a", "log");
        file.append(&[record("old\n")], RUN, 1).await;
        let moved = dir.path().join("a/log.log.1");
        fs::rename(&path, &moved).unwrap();
        file.append(&[record("new\n")], RUN, 2).await;
        assert_eq!(fs::read_to_string(&moved).unwrap(), "old\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert!(Arc::ptr_eq(&file, &files.file("a", "log")));
    }

    #[test]
    fn names_stay_below_the_directory() {
        for (label, name) in [("..", "_."), (".", "_"), (".ssh", "_ssh"), ("a.b", "a.b")] {
            assert_eq!(directory_name(label), name);
        }
    }

    #[test]
    fn a_position_that_is_none_is_ignored() {
        let run = RUN.to_string();
        let good = format!("{run} {:020} {:020}\n", 7, 9);
        assert_eq!(parse_position(&good), Some((RUN, 7, 9)));
        for bad in [
            "",
            "x",
            &format!("{run} 7\n"),
            &format!("{run} 7 9 9\n"),
            &run,
        ] {
            assert_eq!(parse_position(bad), None, "{bad:?}");
        }
    }
}
