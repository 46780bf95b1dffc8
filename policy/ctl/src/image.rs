//! The files of a guest's image, below the directory with the unpacked image.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use odyn_ingress_tls::MAX_FILE;
use odyn_policy::{Diagnostic, IngressTls, Policy, TlsFiles};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

/// The help of the note that files were not checked.
const HELP: &str = "they are in the guest's image: pass its unpacked root with `--root DIR` (`--root /` inside the image)";

/// The root directory of an image.
pub(crate) struct Image(OwnedFd);

impl Image {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, root, flags, Mode::empty())
            .map(Self)
            .with_context(|| format!("can't open the directory {}", root.display()))
    }

    /// Opens a file by its path in the guest.
    ///
    /// Links in the image lead where they would in the guest, never out of the image.
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        // Without NONBLOCK, the open of a pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = openat2(
            &self.0,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a plain file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The findings about the files that a policy names. Without an image, a note that says so.
pub(crate) fn check(policy: &Policy, file_name: &str, image: Option<&Image>) -> Vec<Diagnostic> {
    let tls = policy.settings().ingress.iter().filter_map(|entry| {
        let Some(IngressTls::Files(files)) = &entry.tls else {
            return None;
        };
        Some(&**files)
    });
    tls.flat_map(|files| match image {
        Some(image) => faults(files, file_name, image),
        None => files
            .files()
            .take(1)
            .map(|first| Diagnostic::tls_files_unchecked(file_name, first, HELP))
            .collect(),
    })
    .collect()
}

fn faults(files: &TlsFiles, file_name: &str, image: &Image) -> Vec<Diagnostic> {
    match odyn_ingress_tls::load(files, |path| image.read(path)) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|f| f.diagnostic(file_name)).collect(),
    }
}
