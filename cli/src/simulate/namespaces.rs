//! Enters a network and a mount namespace, without root where possible.

use std::{fs, io};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid};

/// The reason why a guest cannot be simulated here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The kernel or its administrator does not allow user namespaces.
    #[error(
        "cannot make a user namespace: {0}\n\
         without root, `simulate` needs them. Look at these sysctls: \
         user.max_user_namespaces (not 0), kernel.unprivileged_userns_clone (1), \
         kernel.apparmor_restrict_unprivileged_userns (0); or run it as root"
    )]
    User(#[source] io::Error),
    /// The kernel refuses network or mount namespaces to root.
    #[error("cannot make network and mount namespaces: {0} (needs CAP_SYS_ADMIN)")]
    Network(#[source] io::Error),
    /// The user id could not be mapped.
    #[error("cannot map the user id into the namespace: {0}")]
    Map(#[source] io::Error),
    /// Mounts could not be made private.
    #[error("cannot make the mounts private: {0}")]
    Mounts(#[source] io::Error),
}

/// Moves this process into new namespaces. It must have one thread.
///
/// Root needs no user namespace, and `--user` and file access work as usual. Any other user gets a
/// user namespace with the same ids as outside, so files and `id` look as usual. The rights over
/// the new network end with the exec of the app.
pub(super) fn enter() -> Result<(), NamespaceError> {
    let (uid, gid) = (geteuid(), getegid());
    let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    let root = uid.is_root()
        && caps::has_cap(
            None,
            caps::CapSet::Effective,
            caps::Capability::CAP_SYS_ADMIN,
        )
        .unwrap_or(false);
    if root {
        unshare(own).map_err(|error| NamespaceError::Network(error.into()))?;
    } else {
        unshare(own | CloneFlags::CLONE_NEWUSER)
            .map_err(|error| NamespaceError::User(error.into()))?;
        map_ids(uid, gid).map_err(NamespaceError::Map)?;
    }
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|error| NamespaceError::Mounts(error.into()))
}

fn map_ids(uid: Uid, gid: Gid) -> io::Result<()> {
    // The kernel requires this before an unprivileged gid_map (CVE-2014-8989).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}
