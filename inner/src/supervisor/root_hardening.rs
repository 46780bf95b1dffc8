//! Mounts the kernel's settings read-only for an app that runs as root.
//!
//! Root without capabilities still owns root's files, and /proc/sys and much of /sys check nothing
//! but the owner. Through kernel.core_pattern, kernel.modprobe or a uevent helper an app could make
//! the kernel run a command with all rights and without the app's seccomp filter. These trees are
//! therefore read-only for the app, as in container runtimes. To mount them anew the app would need
//! a user namespace of its own, which the filter refuses to root. Where the app is in such a
//! namespace already, the kernel shows no more of procfs and sysfs than before.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Pid, getppid};

use crate::init::on_exit::in_initial_pid_namespace;

/// File systems that consist of kernel settings.
const CONTROLS: [&str; 12] = [
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "selinuxfs",
    "configfs",
    "efivarfs",
    "pstore",
    "bpf",
    "binfmt_misc",
];

/// Kernel settings in procfs. The rest of procfs stays writable, for it shows processes.
const IN_PROC: [&str; 8] = [
    "sys",
    "sysrq-trigger",
    "irq",
    "bus",
    "fs",
    "acpi",
    "scsi",
    "mtrr",
];

/// The reason why an app is not started as root.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShieldError {
    /// odyn-net lacks CAP_SYS_ADMIN, and the settings are writable.
    #[error(
        "an app that runs as root could change the kernel's settings here, and they cannot be \
         made read-only: {0}. Give --user, or CAP_SYS_ADMIN to odyn-net"
    )]
    Namespace(#[source] io::Error),
    /// A path cannot be mounted read-only.
    #[error("cannot make {} read-only for the app: {source}", path.display())]
    Mount {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// /proc/self/mountinfo cannot be read.
    #[error("cannot read the list of mounts: {0}")]
    List(#[source] io::Error),
}

/// Moves this process into a mount namespace in which the kernel's settings are read-only. The
/// process must have one thread.
///
/// # Errors
/// A setting stayed writable; the caller must not start the app as root.
pub fn apply() -> Result<(), ShieldError> {
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
        // In a container without CAP_SYS_ADMIN its runtime has done the same already.
        return match is_read_only("/proc/sys") && is_read_only("/sys") {
            true => Ok(()),
            false => Err(ShieldError::Namespace(error.into())),
        };
    }
    helpers_off();
    let directory = std::env::current_dir();
    let list = std::fs::read("/proc/self/mountinfo").map_err(ShieldError::List)?;
    for entry in list.split(|byte| *byte == b'\n').filter_map(Entry::parse) {
        if CONTROLS.contains(&entry.kind.as_str()) || (entry.kind == "proc" && entry.root != "/") {
            entry.make_read_only()?;
        } else if entry.kind == "proc" {
            if !entry.is_on_top() {
                continue;
            }
            // Mounts made here must not appear outside. MS_SLAVE is set per mount and not on "/",
            // which in a chroot is no mount point.
            let (place, slave) = (entry.place.as_path(), MsFlags::MS_SLAVE);
            mount(None::<&str>, place, None::<&str>, slave, None::<&str>).map_err(failed(place))?;
            for name in IN_PROC {
                cover(&place.join(name), entry.flags)?;
            }
        }
    }
    // The current directory would otherwise lead below the new mounts.
    if let Ok(directory) = directory {
        // A removed directory cannot be entered again, and was of no use.
        let _ = std::env::set_current_dir(directory);
    }
    Ok(())
}

/// Stops the kernel from running helper commands where odyn-net is the machine's init. The helpers
/// are files, which the app could replace, and they would run outside of the app's filter.
fn helpers_off() {
    if getppid() != Pid::from_raw(1) || !in_initial_pid_namespace() {
        return;
    }
    // A kernel without one of these settings needs no change.
    let _ = std::fs::write("/proc/sys/kernel/modprobe", "\n");
    let _ = std::fs::write("/proc/sys/kernel/core_pattern", "core\n");
}

fn is_read_only(path: &str) -> bool {
    match statvfs(path) {
        Ok(found) => found.flags().contains(FsFlags::ST_RDONLY),
        Err(error) => error == Errno::ENOENT,
    }
}

/// Mounts a read-only view of a directory or a file over itself.
fn cover(path: &Path, flags: MsFlags) -> Result<(), ShieldError> {
    if !path.exists() {
        return Ok(());
    }
    let bind = MsFlags::MS_BIND;
    mount(Some(path), path, None::<&str>, bind, None::<&str>).map_err(failed(path))?;
    read_only(path, flags).map_err(failed(path))
}

/// Remounts `path` read-only. `flags` are the flags that the mount has already: in a user
/// namespace the kernel refuses to drop one.
fn read_only(path: &Path, flags: MsFlags) -> nix::Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
}

fn failed(path: &Path) -> impl FnOnce(Errno) -> ShieldError {
    let path = path.to_owned();
    move |error| ShieldError::Mount {
        path,
        source: error.into(),
    }
}

/// One line of /proc/self/mountinfo.
#[derive(Debug, PartialEq)]
struct Entry {
    device: String,
    root: String,
    place: PathBuf,
    flags: MsFlags,
    kind: String,
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Optional fields follow the sixth, up to a dash.
        let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
        let options = text(fields.get(5)?);
        let flags = options.split(',').map(|option| match option {
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            _ => MsFlags::empty(),
        });
        Some(Self {
            device: text(fields.get(2)?),
            root: text(&unescape(fields.get(3)?)),
            place: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
            flags: flags.collect(),
            kind: text(fields.get(dash + 1)?),
        })
    }

    fn make_read_only(&self) -> Result<(), ShieldError> {
        match read_only(&self.place, self.flags) {
            // Another mount covers it, so no process can reach it.
            Err(_) if !self.is_on_top() => Ok(()),
            other => other.map_err(failed(&self.place)),
        }
    }

    fn is_on_top(&self) -> bool {
        let device = std::fs::symlink_metadata(&self.place).map(|found| found.dev());
        device.is_ok_and(|device| {
            let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
            format!("{major}:{minor}") == self.device
        })
    }
}

/// Decodes the octal escapes that mountinfo has for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let line =
            b"36 35 98:0 /a\\040b /mnt\\0401\\134 rw,nosuid,noatime master:1 shared:2 - sysfs s rw";
        let entry = Entry::parse(line).unwrap();
        assert_eq!(entry.device, "98:0");
        assert_eq!(entry.root, "/a b");
        assert_eq!(entry.place, Path::new("/mnt 1\\"));
        assert_eq!(entry.flags, MsFlags::MS_NOSUID);
        assert_eq!(entry.kind, "sysfs");
        let bare = b"1 0 0:1 / / rw - rootfs none rw";
        assert_eq!(Entry::parse(bare).unwrap().kind, "rootfs");
        for broken in [
            &b""[..],
            b"1 2 3",
            b"1 0 0:1 / / rw -",
            b"1 0 0:1 / / rw rootfs none",
        ] {
            assert_eq!(Entry::parse(broken), None);
        }
    }

    #[test]
    fn odd_escapes_stay() {
        assert_eq!(unescape(b"\\"), b"\\");
        assert_eq!(unescape(b"\\9zz\\777"), b"\\9zz\\777");
    }
}
