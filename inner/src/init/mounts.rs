//! Mounts the file systems that programs expect, where they are missing.

use std::path::Path;
use std::{fs, io};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use super::dev;
use crate::init::InitReport;

const SAFE: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// Mounts each missing file system, and nothing over an existing mount.
///
/// cgroup file systems are left out: odyn-net makes no cgroups, and programs take their absence for
/// "no limit", which is the truth.
///
/// # Errors
/// /proc cannot be mounted. Other failures are lines of the report.
pub(super) fn all(report: &mut InitReport) -> io::Result<()> {
    let has_proc =
        || statfs("/proc").is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
    if !has_proc() {
        make("proc", "/proc", SAFE, "")?;
        report.done("mounted /proc");
    }
    attempt(report, "sysfs", "/sys", SAFE, "");
    dev::all(report);
    for (place, mode) in [("/run", "mode=755"), ("/tmp", "mode=1777")] {
        // An image's own /run and /tmp may hold files that its programs need, and may be writable.
        let writable = access(place, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
        if !writable {
            // Programs are built in /tmp, and run from there.
            attempt(report, "tmpfs", place, SAFE - MsFlags::MS_NOEXEC, mode);
        }
    }
    Ok(())
}

/// Mounts a file system, unless the place is a mount point already.
pub(super) fn attempt(
    report: &mut InitReport,
    kind: &str,
    place: &str,
    flags: MsFlags,
    data: &str,
) {
    if is_mount_point(place) {
        return;
    }
    match make(kind, place, flags, data) {
        Ok(()) => report.done(format!("mounted {place} ({kind})")),
        Err(error) => report.missed(format!("{place} is not mounted"), error),
    }
}

/// Mounts a file system, and makes the directory first when it is missing.
pub(super) fn make(kind: &str, place: &str, flags: MsFlags, data: &str) -> io::Result<()> {
    if !Path::new(place).is_dir() {
        fs::create_dir_all(place)?;
    }
    mount(Some(kind), place, Some(kind), flags, Some(data))?;
    Ok(())
}

/// Reads the kernel's list of mounts. Device numbers would not do: two directories of one file
/// system may be mount points too.
pub(super) fn is_mount_point(place: &str) -> bool {
    let list = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    list.lines()
        .any(|line| line.split(' ').nth(4) == Some(place))
}
