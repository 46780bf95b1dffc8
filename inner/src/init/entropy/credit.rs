//! RNDADDENTROPY: adds random bytes to the kernel's generator and credits them. A write to
//! /dev/random adds bytes and credits nothing.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc::c_int;

/// Bytes in one call; the NSM returns 256.
const MAX_BYTES: usize = 256;

/// `struct rand_pool_info` (linux/random.h) with its bytes.
#[repr(C)]
struct Pool {
    /// Credited entropy, in bits.
    entropy_count: c_int,
    /// Length of `buf`, in bytes.
    buf_size: c_int,
    buf: [u8; MAX_BYTES],
}

mod ioctl {
    // _IOW('R', 0x03, int[2]): the size in the number is that of the header.
    nix::ioctl_write_ptr_bad!(
        add_entropy,
        nix::request_code_write!(b'R', 0x03, 2 * size_of::<nix::libc::c_int>()),
        super::Pool
    );
}

/// Adds the first bytes and credits all their bits; returns their number.
pub(super) fn add(bytes: &[u8]) -> io::Result<usize> {
    let count = bytes.len().min(MAX_BYTES);
    let mut pool = Pool {
        entropy_count: (count * 8) as c_int,
        buf_size: count as c_int,
        buf: [0; MAX_BYTES],
    };
    pool.buf[..count].copy_from_slice(&bytes[..count]);
    let random = File::options().write(true).open("/dev/random")?;
    // SAFETY: the descriptor is open, and the kernel reads the header and then `buf_size` bytes of
    // `buf`, which is at least as long, from a struct that lives through the call.
    unsafe { ioctl::add_entropy(random.as_raw_fd(), &pool) }?;
    Ok(count)
}
