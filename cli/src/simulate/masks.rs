//! Hides what would answer name lookups past our resolver.
//!
//! An enclave has its own files; a simulated guest sees the caller's. Resolvers that are reached
//! by a Unix socket (systemd-resolved, nscd, avahi) would answer with real addresses, which no
//! name rule matches, and /etc/hosts likewise: the host half reads it instead.

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

/// Our resolver, with the search list and the options that the caller has.
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

/// Puts a file over another. Its own name is gone when this returns: the mount keeps the content,
/// and nobody has to live to remove it.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut file = NamedTempFile::with_prefix("odyn-net-")?;
    file.write_all(content.as_bytes())?;
    // The program may run as somebody else, and reads it too.
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
            "# made by somebody\nnameserver 10.0.0.2\nsearch corp.example\noptions ndots:5\n",
        );
        assert_eq!(
            settings,
            "nameserver 198.18.0.1\nsearch corp.example\noptions ndots:5\n"
        );
    }
}
