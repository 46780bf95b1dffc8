//! Sets /dev up: devtmpfs, or a few device nodes where the kernel lacks it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::{fs, io};

use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};

use super::mounts::{attempt, is_mount_point, make};
use crate::init::InitReport;

/// Devices that any app may use: name, major, minor.
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

pub(super) fn all(report: &mut InitReport) {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    if !is_mount_point("/dev") {
        match make("devtmpfs", "/dev", quiet, "mode=755") {
            Ok(()) => report.done("mounted /dev (devtmpfs)"),
            Err(error) => match tmpfs(Path::new("/dev")) {
                Ok(()) => report.done(format!("made /dev, as devtmpfs is not available: {error}")),
                Err(error) => report.missed("/dev is not mounted", error),
            },
        }
    }
    links(Path::new("/dev"));
    // Group 5 is `tty` in every distribution; mesg and write need the terminals in it.
    let data = "gid=5,mode=620,ptmxmode=666";
    attempt(report, "devpts", "/dev/pts", quiet, data);
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attempt(report, "tmpfs", "/dev/shm", quiet, "mode=1777");
}

/// Fills /dev with nodes, for kernels without devtmpfs and for user namespaces.
fn tmpfs(place: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    make(
        "tmpfs",
        &place.to_string_lossy(),
        flags,
        "mode=755,size=64k",
    )?;
    let before = umask(Mode::empty());
    let made = NODES.iter().try_for_each(|(name, major, minor)| {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(
            &place.join(name),
            SFlag::S_IFCHR,
            mode,
            makedev(*major, *minor),
        )
    });
    umask(before);
    Ok(made?)
}

/// Makes the links and directories of /dev; existing ones stay.
fn links(place: &Path) {
    for (name, target) in LINKS {
        let _ = symlink(target, place.join(name));
    }
    for name in ["pts", "shm"] {
        let _ = fs::create_dir(place.join(name));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::mount::mount;
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn nodes_of_our_own_work() {
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("ODYN_REQUIRE_ROOT").is_none(),
                "needs root"
            );
            return;
        }
        // The mounts of this thread only.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let dev = directory.path();
        tmpfs(dev).unwrap();
        links(dev);
        fs::File::options()
            .write(true)
            .open(dev.join("null"))
            .unwrap()
            .write_all(b"x")
            .unwrap();
        let mut bytes = [1; 4];
        fs::File::open(dev.join("zero"))
            .unwrap()
            .read_exact(&mut bytes)
            .unwrap();
        assert_eq!(bytes, [0; 4]);
        fs::File::open(dev.join("urandom"))
            .unwrap()
            .read_exact(&mut bytes)
            .unwrap();
        let full = fs::File::options()
            .write(true)
            .open(dev.join("full"))
            .unwrap()
            .write(b"x");
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(
            fs::read_link(dev.join("fd")).unwrap(),
            Path::new("/proc/self/fd")
        );
        assert!(dev.join("shm").is_dir());
        nix::mount::umount(dev).unwrap();
    }
}
