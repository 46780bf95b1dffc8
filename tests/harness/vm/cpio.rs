//! Writes an initramfs: a cpio archive in the `newc` format, as the kernel unpacks it
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::{fs, io};

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in the making. Directories are added before what is in them, by themselves.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a file with this content.
    pub fn file(&mut self, path: &str, content: &[u8], mode: u32) {
        self.parents(path);
        self.entry(path, FILE | mode, (0, 0), content);
    }

    /// Adds a directory; an empty one too.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.entry(path, DIRECTORY | mode, (0, 0), b"");
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.parents(path);
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), b"");
    }

    /// Adds a file of this machine, with its mode.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn copy(&mut self, from: &Path, to: &str) -> io::Result<()> {
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        let content = fs::read(from)?;
        self.file(to, &content, mode);
        Ok(())
    }

    /// Whether the archive has an entry of this name.
    pub fn has(&self, path: &str) -> bool {
        self.names.contains(path)
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let Some(parent) = path.get(..end) else {
                continue;
            };
            if !self.has(parent) {
                self.entry(parent, DIRECTORY | 0o755, (0, 0), b"");
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inodes += 1;
        self.names.insert(path.to_owned());
        let size = u32::try_from(content.len()).expect("no file of 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("a path");
        let fields = [
            self.inodes,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
