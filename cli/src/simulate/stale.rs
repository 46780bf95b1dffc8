//! Removes the link directories of killed simulations.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use nix::unistd::geteuid;

/// Prefix of the directories' names.
pub(super) const PREFIX: &str = "odyn-net-";
/// Name of the link's socket in the directory.
pub(super) const LINK: &str = "link";

/// Age at which a socket is checked: a new one may not listen yet.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Removes what killed simulations of this user left in `directory`. Failures are ignored, as
/// nothing depends on it.
pub(super) fn remove(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(PREFIX));
        if is_ours && is_dead(&entry.path()).unwrap_or(false) {
            tracing::debug!(path = %entry.path().display(), "removing the directory of a killed simulation");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether this is a directory of this user with a socket that no process listens on.
fn is_dead(directory: &Path) -> io::Result<bool> {
    let meta = fs::symlink_metadata(directory)?;
    if !meta.is_dir() || meta.uid() != geteuid().as_raw() {
        return Ok(false);
    }
    let link = directory.join(LINK);
    let made = fs::symlink_metadata(&link)?.modified()?;
    if made.elapsed().unwrap_or_default() < MIN_AGE {
        return Ok(false);
    }
    Ok(matches!(
        UnixStream::connect(&link),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixListener;

    fn simulation(root: &Path, name: &str) -> UnixListener {
        let directory = root.join(name);
        fs::create_dir(&directory).unwrap();
        UnixListener::bind(directory.join(LINK)).unwrap()
    }

    fn age(path: &Path) {
        use nix::sys::stat::{UtimensatFlags, utimensat};
        use nix::sys::time::{TimeSpec, TimeValLike};
        let old = TimeSpec::seconds(1_000_000_000);
        utimensat(
            nix::fcntl::AT_FDCWD,
            path,
            &old,
            &old,
            UtimensatFlags::NoFollowSymlink,
        )
        .unwrap();
    }

    #[test]
    fn only_what_the_dead_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        drop(simulation(root.path(), "odyn-net-dead"));
        drop(simulation(root.path(), "odyn-net-young"));
        drop(simulation(root.path(), "other-dead"));
        let _lives = simulation(root.path(), "odyn-net-lives");
        for name in ["odyn-net-dead", "other-dead", "odyn-net-lives"] {
            age(&path(name).join(LINK));
        }
        fs::create_dir(path("odyn-net-empty")).unwrap();
        File::create(path("odyn-net-file")).unwrap();
        remove(root.path());
        let mut left: Vec<String> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "odyn-net-empty",
                "odyn-net-file",
                "odyn-net-lives",
                "odyn-net-young",
                "other-dead"
            ]
        );
    }
}
