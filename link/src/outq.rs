//! How much of what was written to a TCP socket its peer has not acknowledged.

use std::{io, os::fd::AsRawFd};

use tokio::net::TcpStream;

/// Bytes in the send queue that are not acknowledged (SIOCOUTQ, tcp(7)). A FIN counts as one.
///
/// # Errors
/// When the socket can't tell.
#[allow(unsafe_code)]
pub(crate) fn unacknowledged(socket: &TcpStream) -> io::Result<usize> {
    let mut bytes: nix::libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and TIOCOUTQ (the same
    // number as SIOCOUTQ) writes one int, for which `bytes` has room.
    let result =
        unsafe { nix::libc::ioctl(socket.as_raw_fd(), nix::libc::TIOCOUTQ, &raw mut bytes) };
    nix::errno::Errno::result(result)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
