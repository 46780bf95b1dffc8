//! Clients and servers that no distribution has: `scripts/third-party` installs them, and `scripts/test`
//! says by variables where they are.

use std::ffi::OsString;

/// The value of such a variable; `None`, with a word on standard error, when it is not set.
///
/// # Panics
/// When it is not set and `ODYN_REQUIRE_CLIENTS` asks for a failure in place of a skipped test.
pub fn installed(variable: &str) -> Option<OsString> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    if value.is_none() {
        assert!(
            std::env::var_os("ODYN_REQUIRE_CLIENTS").is_none(),
            "{variable} is not set: scripts/test sets it"
        );
        eprintln!("skipped: {variable} is not set (scripts/third-party installs what it names)");
    }
    value
}
