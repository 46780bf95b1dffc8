//! Judges a kernel's `.config`, before an image is built with it.

mod evaluate;
mod parse;

pub(super) use crate::doctor::kernel_config::evaluate::{evaluate, name_of};
use crate::doctor::kernel_config::parse::ConfigError;
pub(super) use crate::doctor::kernel_config::parse::KernelConfig;

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;

/// Bytes of a configuration, at most. Real ones have a few hundred KiB.
const MAX_CONFIG: u64 = 16 << 20;

/// The reason why no configuration can be judged.
#[derive(Debug, thiserror::Error)]
pub enum KernelConfigError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(String, #[source] io::Error),
    /// The file is no kernel configuration.
    #[error("{0}: {1}")]
    Content(String, #[source] ConfigError),
}

/// Reads a file, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<KernelConfig, KernelConfigError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let result = if path == Path::new("-") {
        io::stdin().lock().take(MAX_CONFIG).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_CONFIG).read_to_end(&mut bytes))
    };
    result.map_err(|error| KernelConfigError::Read(name.clone(), error))?;
    parse::parse(&bytes).map_err(|error| KernelConfigError::Content(name, error))
}
