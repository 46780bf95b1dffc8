//! A small system file, parsed, and parsed again when it has changed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use parking_lot::Mutex;

/// More than this of a file is not read: even long block lists are shorter.
const LONGEST: u64 = 16 << 20;

/// What tells one version of a file from the next.
type Stamp = (u64, u64, u64, i64, i64);

/// A file and what it says.
#[derive(Debug)]
pub(super) struct WatchedFile<T> {
    path: PathBuf,
    parse: fn(&str) -> T,
    state: Mutex<CachedFile<T>>,
}

#[derive(Debug)]
struct CachedFile<T> {
    stamp: Option<Stamp>,
    value: Arc<T>,
}

impl<T> WatchedFile<T> {
    pub(super) fn new(path: &Path, parse: fn(&str) -> T) -> Self {
        Self {
            path: path.to_owned(),
            parse,
            state: Mutex::new(CachedFile {
                stamp: None,
                value: Arc::new(parse("")),
            }),
        }
    }

    /// What the file says now. A file that is not there says nothing; one that cannot be read just
    /// now still says what it said. The cost is one `stat` unless it has changed.
    pub(super) fn get(&self) -> Arc<T> {
        let mut state = self.state.lock();
        let now = fs::metadata(&self.path).map(|metadata| stamp(&metadata));
        if now.as_ref().ok() == state.stamp.as_ref() {
            return Arc::clone(&state.value);
        }
        match self.read() {
            Ok((stamp, text)) => {
                state.stamp = Some(stamp);
                state.value = Arc::new((self.parse)(&text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                state.stamp = None;
                state.value = Arc::new((self.parse)(""));
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "not read");
            }
        }
        Arc::clone(&state.value)
    }

    fn read(&self) -> io::Result<(Stamp, String)> {
        let file = File::open(&self.path)?;
        // Of the open file: the path may lead to another one by now.
        let stamp = stamp(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok((stamp, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_file() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("file");
        let watched = WatchedFile::new(&path, str::to_owned);
        assert_eq!(*watched.get(), "");
        fs::write(&path, "one").expect("write");
        assert_eq!(*watched.get(), "one");
        assert!(Arc::ptr_eq(&watched.get(), &watched.get()), "read once");
        fs::write(&path, "longer").expect("write");
        assert_eq!(*watched.get(), "longer");
        // As editors and DHCP clients do it.
        fs::write(directory.path().join("new"), "renam!").expect("write");
        fs::rename(directory.path().join("new"), &path).expect("rename");
        assert_eq!(*watched.get(), "renam!");
        fs::remove_file(&path).expect("remove");
        assert_eq!(*watched.get(), "");
    }
}
