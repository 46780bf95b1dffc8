//! Hides files and sockets that would answer name lookups past odyn-net's resolver.
//!
//! An enclave has its own files; a simulated guest sees the caller's. Resolvers behind a Unix
//! socket (systemd-resolved, nscd, avahi) would answer with real addresses, which no name rule
//! matches. /etc/hosts would do the same; the host reads it instead.

use std::io;
use std::io::Write;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use tempfile::NamedTempFile;

const RESOLVER_SOCKETS: [&str; 4] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
    "/var/run/nscd/socket",
    "/run/avahi-daemon/socket",
];

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// Mounts the masks in this mount namespace.
pub(super) fn apply() -> io::Result<()> {
    for socket in RESOLVER_SOCKETS {
        if Path::new(socket).exists() {
            bind(Path::new("/dev/null"), Path::new(socket))?;
        }
    }
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for (path, content) in [
        ("/etc/resolv.conf", resolver_settings(&resolv_conf)),
        ("/etc/hosts", HOSTS.to_owned()),
    ] {
        // A missing file needs no mask: without resolv.conf, libc asks 127.0.0.1.
        if Path::new(path).exists() {
            replace(Path::new(path), &content)?;
        }
    }
    Ok(())
}

/// Builds a resolv.conf with odyn-net's resolver and the caller's search list and options.
fn resolver_settings(callers: &str) -> String {
    let mut settings = format!("nameserver {}\n", odyn_proto::synthetic::GUEST_V4);
    for line in callers.lines() {
        if matches!(
            line.split_whitespace().next(),
            Some("search" | "domain" | "options")
        ) {
            settings.push_str(line);
            settings.push('\n');
        }
    }
    settings
}

/// Mounts a new file over another. The new file's name is removed at once: the mount keeps the
/// content, and no process must outlive it to clean up.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut file = NamedTempFile::with_prefix("odyn-net-")?;
    file.write_all(content.as_bytes())?;
    // The app may run as another user, and reads the file, too.
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o444))?;
    bind(file.path(), path)
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_lists_and_options_survive_and_servers_do_not() {
        let settings = resolver_settings(
            "# comment\nnameserver 10.0.0.2\nsearch corp.example\noptions ndots:5\n",
        );
        assert_eq!(
            settings,
            "nameserver 198.18.0.1\nsearch corp.example\noptions ndots:5\n"
        );
    }
}
