//! RNDADDENTROPY: the one way to add random bytes and have the kernel believe in them (a write to
//! /dev/random adds and credits nothing).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::libc::c_int;

/// What one call carries; the NSM gives 256 bytes.
const MOST: usize = 256;

/// `struct rand_pool_info` (linux/random.h) with its bytes.
#[repr(C)]
struct Pool {
    /// In bits.
    entropy_count: c_int,
    /// In bytes.
    buf_size: c_int,
    buf: [u8; MOST],
}

mod ioctl {
    // _IOW('R', 0x03, int[2]): the size in the number is that of the header.
    nix::ioctl_write_ptr_bad!(
        add_entropy,
        nix::request_code_write!(b'R', 0x03, 2 * size_of::<nix::libc::c_int>()),
        super::Pool
    );
}

/// Adds the first bytes, and credits all their bits; how many bytes these were.
pub(super) fn add(bytes: &[u8]) -> io::Result<usize> {
    let count = bytes.len().min(MOST);
    let mut pool = Pool {
        entropy_count: (count * 8) as c_int,
        buf_size: count as c_int,
        buf: [0; MOST],
    };
    pool.buf[..count].copy_from_slice(&bytes[..count]);
    let random = File::options().write(true).open("/dev/random")?;
    // SAFETY: the descriptor is open, and the kernel reads the header and then `buf_size` bytes of
    // `buf`, which is at least as long, from a struct that lives through the call.
    unsafe { ioctl::add_entropy(random.as_raw_fd(), &pool) }?;
    Ok(count)
}
