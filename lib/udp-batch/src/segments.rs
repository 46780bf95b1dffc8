//! Datagrams as segments of one packet (`UDP_SEGMENT`).
//!
//! The sizes that the kernel accepts depend on the path to the receiver and can change. Datagrams
//! that it refuses are sent one by one. Receivers see no difference.

use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sys::socket::sockopt::UdpGsoSegment;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, getsockopt, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::{MAX_DATAGRAM, Taken};

/// Most datagrams of one call, which every kernel with segments accepts.
pub const MAX_SENT: usize = 64;

/// The datagrams that a socket can send as segments.
#[derive(Debug)]
pub struct Segments {
    /// Longest datagrams that are sent as segments; 0 for none.
    longest: AtomicUsize,
}

impl Segments {
    /// The abilities of `socket`, as far as they are known before the first datagram.
    pub fn of(socket: &UdpSocket) -> Self {
        // A kernel without segments would send them as one long datagram.
        let knows = getsockopt(socket, UdpGsoSegment).is_ok();
        Self {
            longest: AtomicUsize::new(if knows { MAX_DATAGRAM } else { 0 }),
        }
    }

    /// Sends the first of some datagrams, at least one if there is any.
    ///
    /// They go to an address, or to the peer of a connected socket.
    ///
    /// # Errors
    /// As for a socket that sends one datagram. The error is about the first datagram.
    pub fn try_send<D: AsRef<[u8]>>(
        &self,
        socket: &UdpSocket,
        datagrams: &[D],
        to: Option<SocketAddr>,
    ) -> io::Result<Taken> {
        let Some(first) = datagrams.first().map(AsRef::as_ref) else {
            return Ok(Taken::default());
        };
        let count = run(datagrams, self.longest.load(Ordering::Relaxed));
        if let Some(run) = datagrams.get(..count).filter(|run| run.len() > 1) {
            match send(socket, first.len(), run, to) {
                Err(error) if self.is_refused(&error, first.len()) => {}
                sent => return sent,
            }
        }
        match to {
            Some(to) => socket.try_send_to(first, to)?,
            None => socket.try_send(first)?,
        };
        Ok(std::iter::once(first).collect())
    }

    /// Whether an error means that datagrams of `size` can't be segments. The limit is remembered.
    fn is_refused(&self, error: &io::Error, size: usize) -> bool {
        match error.raw_os_error().map(Errno::from_raw) {
            // The datagrams are longer than packets on the path.
            Some(Errno::EINVAL | Errno::EMSGSIZE) => {
                let shorter = size.saturating_sub(1);
                self.longest.fetch_min(shorter, Ordering::Relaxed);
                true
            }
            // The device, or a layer before it, accepts no segments.
            Some(Errno::EIO | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT) => {
                self.longest.store(0, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }
}

/// The number of datagrams, from the first on, that can be segments of one packet.
///
/// They have one size, at most `longest`; only the last may be shorter.
fn run<D: AsRef<[u8]>>(datagrams: &[D], longest: usize) -> usize {
    let mut sizes = datagrams.iter().map(|datagram| datagram.as_ref().len());
    let Some(size) = sizes.next().filter(|size| (1..=longest).contains(size)) else {
        return 0;
    };
    let (mut count, mut bytes) = (1, size);
    for next in sizes.take(MAX_SENT - 1) {
        bytes += next;
        // A datagram without bytes cannot be a segment.
        if next == 0 || next > size || bytes > MAX_DATAGRAM {
            break;
        }
        count += 1;
        if next < size {
            break;
        }
    }
    count
}

/// Sends all of a run.
fn send<D: AsRef<[u8]>>(
    socket: &UdpSocket,
    size: usize,
    run: &[D],
    to: Option<SocketAddr>,
) -> io::Result<Taken> {
    let segment = u16::try_from(size).map_err(|_| Errno::EMSGSIZE)?;
    let to = to.map(SockaddrStorage::from);
    let mut slices = [IoSlice::new(&[]); MAX_SENT];
    let mut taken = Taken::default();
    for (slice, datagram) in slices.iter_mut().zip(run) {
        *slice = IoSlice::new(datagram.as_ref());
        taken.add(datagram.as_ref());
    }
    debug_assert!(taken.datagrams == run.len(), "a run fits into one call");
    let slices = slices.get(..taken.datagrams).unwrap_or_default();
    socket.try_io(Interest::WRITABLE, || {
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let flags = MsgFlags::MSG_DONTWAIT;
        sendmsg(socket.as_raw_fd(), slices, &control, flags, to.as_ref())?;
        Ok(taken)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_size_and_a_shorter_end() {
        let count = |sizes: &[usize], longest| {
            let datagrams: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0; *size]).collect();
            run(&datagrams, longest)
        };
        assert_eq!(count(&[], 1000), 0);
        assert_eq!(count(&[0, 0], 1000), 0);
        assert_eq!(count(&[5], 1000), 1);
        assert_eq!(count(&[5, 5, 5], 1000), 3);
        assert_eq!(count(&[5, 5, 4, 4], 1000), 3);
        assert_eq!(count(&[5, 6], 1000), 1);
        assert_eq!(count(&[5, 0, 5], 1000), 1);
        assert_eq!(count(&[1000; 3], 1000), 3);
        assert_eq!(count(&[1001; 3], 1000), 0);
        assert_eq!(count(&[5, 5], 0), 0);
        assert_eq!(count(&[5; 100], 1000), MAX_SENT);
        assert_eq!(count(&[30_000; 3], MAX_DATAGRAM), 2);
        assert_eq!(count(&[MAX_DATAGRAM - 1, 1, 1], MAX_DATAGRAM), 2);
        assert_eq!(count(&[MAX_DATAGRAM, 1], MAX_DATAGRAM), 1);
    }

    #[test]
    fn what_the_kernel_refuses_is_remembered() {
        let segments = |longest| Segments {
            longest: AtomicUsize::new(longest),
        };
        let longest_after = |errno: Errno, size| {
            let segments = segments(MAX_DATAGRAM);
            let is_refused = segments.is_refused(&errno.into(), size);
            (is_refused, segments.longest.into_inner())
        };
        assert_eq!(longest_after(Errno::EINVAL, 1473), (true, 1472));
        assert_eq!(longest_after(Errno::EMSGSIZE, 9000), (true, 8999));
        assert_eq!(longest_after(Errno::EIO, 200), (true, 0));
        assert_eq!(longest_after(Errno::EOPNOTSUPP, 200), (true, 0));
        // Errors that concern any datagram go to the sender.
        for errno in [Errno::ECONNREFUSED, Errno::EAGAIN, Errno::ENOBUFS] {
            assert_eq!(longest_after(errno, 200), (false, MAX_DATAGRAM));
        }
        let shorter = segments(100);
        assert!(shorter.is_refused(&Errno::EINVAL.into(), 200));
        assert_eq!(shorter.longest.into_inner(), 100, "it never grows again");
    }

    #[tokio::test]
    async fn one_by_one_it_arrives_all_the_same() {
        let to = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let without = Segments {
            longest: AtomicUsize::new(0),
        };
        let datagrams = [[1; 20], [2; 20], [3; 20]];
        let address = Some(to.local_addr().unwrap());
        from.writable().await.unwrap();
        for (number, datagram) in datagrams.iter().enumerate() {
            let rest = datagrams.get(number..).unwrap();
            let taken = without.try_send(&from, rest, address).unwrap();
            assert_eq!((taken.datagrams, taken.bytes), (1, 20));
            let mut buffer = [0; 100];
            assert_eq!(to.recv(&mut buffer).await.unwrap(), 20);
            assert_eq!(buffer.first_chunk(), Some(datagram));
        }
    }
}
