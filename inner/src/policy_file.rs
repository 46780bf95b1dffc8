//! Reads the policy file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use odyn_policy::Policy;

/// The reason why there is no policy to enforce.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// The file cannot be read.
    #[error("cannot read the policy {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file has errors; the text names each with file, line and column.
    #[error("{0}")]
    Invalid(String),
}

/// Reads and checks the policy. Errors end the start; `policyctl check` shows warnings.
///
/// # Errors
/// The file cannot be read, or has errors: the text lists each with file, line and column.
pub fn load(path: &Path) -> Result<Arc<Policy>, PolicyFileError> {
    let bytes = std::fs::read(path).map_err(|source| PolicyFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    let loaded = odyn_policy::load_bytes(&path.display().to_string(), &bytes);
    loaded.policy.map(Arc::new).ok_or_else(|| {
        let text = String::from_utf8_lossy(&bytes);
        let errors: Vec<String> = loaded
            .diagnostics
            .iter()
            .filter(|d| d.severity == odyn_policy::Severity::Error)
            .map(|d| odyn_policy::render(d, &text))
            .collect();
        PolicyFileError::Invalid(errors.join("\n"))
    })
}
