//! Reads certificate and key files.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::{fs, io};

use nix::fcntl::OFlag;
use odyn_ingress_tls::MAX_FILE;

/// Distinguishes versions of a file. Includes the inode's change time, which no process can set
/// back.
pub(super) type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

pub(super) fn stamp(path: &str) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok((
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    ))
}

/// Reads a regular file. A pipe or a device would block, and is refused.
pub(super) fn read(path: &str) -> io::Result<Vec<u8>> {
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
