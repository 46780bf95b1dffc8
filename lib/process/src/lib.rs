//! What both executables of odyn set for their own process before they do anything else.

#![forbid(unsafe_code)]

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limit of open files before and after [`raise_file_limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimit {
    /// The soft limit that this process was started with, which its children should get.
    pub before: u64,
    /// The soft limit now.
    pub now: u64,
}

/// Raises the limit of open files as far as this process may: each flow takes a descriptor.
///
/// # Errors
/// The system tells no limit, or refuses to raise it; it is then as it was.
pub fn raise_file_limit() -> nix::Result<FileLimit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(FileLimit {
        before: soft,
        now: hard,
    })
}

/// Asks the kernel for no huge pages, also where it gives them to everyone. Best effort.
///
/// An idle process uses little of each huge page. mimalloc is built not to ask for them; this
/// covers kernels that enable them for all processes.
pub fn disable_huge_pages() {
    let _ = prctl::set_thp_disable(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_goes_up_to_what_is_allowed_and_stays_there() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let raised = raise_file_limit().unwrap();
        assert_eq!(raised.now, hard);
        let again = raise_file_limit().unwrap();
        assert_eq!((again.before, again.now), (hard, hard));
    }
}
