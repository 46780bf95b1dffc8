//! Policy files as bytes.

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Longest input that is read, in bytes.
///
/// The policy library refuses longer files. This limit keeps a device or an endless pipe from
/// filling the memory.
const MAX_READ: u64 = 17 << 20;

/// A file that was read.
pub(crate) struct PolicySource {
    /// The name of the file in findings.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl PolicySource {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self {
                name: "<stdin>".to_owned(),
                bytes: limited(io::stdin().lock()).context("can't read the standard input")?,
            });
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("can't open {name}"))?;
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            bail!("can't read {name}: it is a directory");
        }
        let bytes = limited(file).with_context(|| format!("can't read {name}"))?;
        Ok(Self { name, bytes })
    }

    /// The text, with replacements for bytes that are not UTF-8, to show its lines.
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_READ).read_to_end(&mut bytes)?;
    Ok(bytes)
}
