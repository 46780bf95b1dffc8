//! What a test needs from scripts that ran before it: the static executables, a kernel, a root file system.

use std::path::PathBuf;

/// The folder that the variable names. `None`, with a word on standard error, when it is not set: the
/// test is skipped then, unless `ODYN_REQUIRE_DIST` says that nothing is.
///
/// # Panics
/// When nothing may be skipped.
pub fn folder(variable: &str) -> Option<PathBuf> {
    let found = std::env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        assert!(
            std::env::var_os("ODYN_REQUIRE_DIST").is_none(),
            "{variable} is not set"
        );
        eprintln!("SKIPPED: {variable} is not set");
    }
    found
}
