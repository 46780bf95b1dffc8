//! Writes the files in /etc that name resolution needs, and names the machine.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{fs, io};

use tempfile::NamedTempFile;

use crate::init::InitReport;

/// The content of /etc/resolv.conf. Any server would do, as odyn-net captures port 53 at every
/// address; this one is odyn-net's own.
fn resolv_conf() -> String {
    format!("nameserver {}\n", odyn_proto::synthetic::GUEST_V4)
}

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// Writes /etc/resolv.conf when it is missing or empty. Without the file libc asks 127.0.0.1, which
/// is captured too, and other resolvers give up.
pub(super) fn resolver(report: &mut InitReport) {
    provide(Path::new("/etc/resolv.conf"), &resolv_conf(), true, report);
}

/// Writes /etc/hosts when it is missing. An empty file may be intended and stays.
pub(super) fn hosts(report: &mut InitReport) {
    provide(Path::new("/etc/hosts"), HOSTS, false, report);
}

/// Gives the machine the policy's name, if it has none.
pub(super) fn host_name(name: Option<&str>, report: &mut InitReport) {
    let current = nix::unistd::gethostname().unwrap_or_default();
    let name: String = name
        .unwrap_or("localhost")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .take(64)
        .collect();
    // The kernel starts with the name "(none)".
    if (!current.is_empty() && current != "(none)") || name.is_empty() {
        return;
    }
    match nix::unistd::sethostname(&name) {
        Ok(()) => report.done(format!("named the machine {name}")),
        Err(error) => report.missed("the machine has no name", error),
    }
}

fn provide(path: &Path, content: &str, replace_empty: bool, report: &mut InitReport) {
    let wanted = match fs::read(path) {
        Ok(bytes) => replace_empty && bytes.trim_ascii().is_empty(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !wanted {
        return;
    }
    match write(path, content) {
        Ok(()) => report.done(format!("wrote {}", path.display())),
        Err(error) => report.missed(format!("{} is not written", path.display()), error),
    }
}

/// Writes a file: in place when it exists, as it may be a mount; else by renaming, which also
/// replaces a dangling link.
fn write(path: &Path, content: &str) -> io::Result<()> {
    if path.exists() {
        return fs::write(path, content);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let mut file = NamedTempFile::with_prefix_in(".odyn-net-", directory)?;
    file.write_all(content.as_bytes())?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provided(path: &Path, replace_empty: bool) -> Option<String> {
        provide(path, "new\n", replace_empty, &mut InitReport::default());
        fs::read_to_string(path).ok()
    }

    #[test]
    fn only_what_is_missing_or_empty_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(
            provided(&path("sub/missing"), true).as_deref(),
            Some("new\n")
        );
        let mode = fs::metadata(path("sub/missing"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
        for (name, before, replace, after) in [
            ("empty", "", true, "new\n"),
            ("blank", "\n \n", true, "new\n"),
            ("comment", "# mine\n", true, "# mine\n"),
            ("chosen", "", false, ""),
        ] {
            fs::write(path(name), before).unwrap();
            assert_eq!(
                provided(&path(name), replace).as_deref(),
                Some(after),
                "{name}"
            );
        }
        std::os::unix::fs::symlink("nowhere/file", path("dangling")).unwrap();
        assert_eq!(provided(&path("dangling"), true).as_deref(), Some("new\n"));
        assert!(!path("dangling").is_symlink());
    }

    #[test]
    fn what_cannot_be_written_is_one_line() {
        let mut report = InitReport::default();
        provide(Path::new("/proc/odyn/resolv.conf"), "x", true, &mut report);
        assert_eq!(report.lines.len(), 1);
        assert!(!report.lines[0].0, "{report:?}");
    }
}
