//! The ioctls of a TUN device (linux/if_tun.h): the only unsafe code of this capture.
#![expect(unsafe_code, reason = "ioctl(2) has no safe form")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc;

mod raw {
    nix::ioctl_write_int!(set_owner, b'T', 204);
    nix::ioctl_write_int!(set_offload, b'T', 208);
    // The kernel's definition says `int`, but the pointer leads to an ifreq.
    nix::ioctl_readwrite_bad!(
        set_iff,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        nix::libc::ifreq
    );
}

/// Makes a device of this name with these flags, and attaches it to the file.
pub(super) fn create(file: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    let room = ifr_name.len() - 1;
    for (to, from) in ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags as libc::c_short,
        },
    };
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is and which lives over the
    // call; its name ends with a NUL.
    unsafe { raw::set_iff(file.as_raw_fd(), &raw mut request) }?;
    Ok(())
}

/// Lets only this user attach to the device; CAP_NET_ADMIN may still.
pub(super) fn set_owner(file: &File, user: u32) -> io::Result<()> {
    // SAFETY: TUNSETOWNER takes its argument by value and touches no memory of ours.
    unsafe { raw::set_owner(file.as_raw_fd(), u64::from(user)) }?;
    Ok(())
}

/// Tells the kernel which offloads this device takes.
pub(super) fn set_offload(file: &File, offload: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    unsafe { raw::set_offload(file.as_raw_fd(), u64::from(offload)) }?;
    Ok(())
}
