//! Two ioctls on devices for which no safe wrapper exists.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

mod raw {
    // linux/if_tun.h: _IOR('T', 207, unsigned int)
    nix::ioctl_read!(tun_get_features, b'T', 207, nix::libc::c_uint);
    // linux/vm_sockets.h: _IO(7, 0xb9); it writes 32 bits all the same.
    nix::ioctl_read_bad!(vsock_local_cid, 0x7b9, u32);
}

/// Returns the flags (IFF_*) that this kernel's TUN devices may have. Makes no device.
pub(super) fn tun_features(device: impl AsFd) -> io::Result<u32> {
    let mut features = 0;
    // SAFETY: the descriptor is open for the whole call, and the kernel writes one unsigned int
    // through the pointer.
    unsafe { raw::tun_get_features(device.as_fd().as_raw_fd(), &mut features) }?;
    Ok(features)
}

/// Returns the CID of this machine.
pub(super) fn vsock_local_cid(device: impl AsFd) -> io::Result<u32> {
    let mut cid = 0;
    // SAFETY: the descriptor is open for the whole call, and the kernel writes 32 bits through the
    // pointer.
    unsafe { raw::vsock_local_cid(device.as_fd().as_raw_fd(), &mut cid) }?;
    Ok(cid)
}
