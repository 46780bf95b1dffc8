//! A small system file that is parsed again when it has changed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use parking_lot::Mutex;

/// Most bytes that are read of a file. Even long block lists are shorter.
const MAX_LEN: u64 = 16 << 20;

/// Identifies a version of a file: device, inode, size, and modification time.
type Stamp = (u64, u64, u64, i64, i64);

/// A file and its parsed content.
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

    /// The content of the file now: one `stat`, unless it has changed.
    ///
    /// A missing file is empty. While a file can't be read, its last content is used.
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
                tracing::warn!(path = %self.path.display(), %error, "can't read a file of the resolver: its last content is used");
            }
        }
        Arc::clone(&state.value)
    }

    fn read(&self) -> io::Result<(Stamp, String)> {
        let file = File::open(&self.path)?;
        // Of the open file: the path may lead to another file by now.
        let stamp = stamp(&file.metadata()?);
        let mut bytes = Vec::new();
        file.take(MAX_LEN).read_to_end(&mut bytes)?;
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
        // Editors and DHCP clients replace a file by renaming another.
        fs::write(directory.path().join("new"), "renam!").expect("write");
        fs::rename(directory.path().join("new"), &path).expect("rename");
        assert_eq!(*watched.get(), "renam!");
        fs::remove_file(&path).expect("remove");
        assert_eq!(*watched.get(), "");
    }
}
