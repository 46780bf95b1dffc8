//! Buffers for the datagrams of one call.

use std::cell::Cell;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use tokio::net::UdpSocket;

/// Most datagrams that one call receives.
pub const MAX_RECEIVED: usize = 16;
/// Buffer size for a datagram of any size.
const ROOM: usize = 1 << 16;

thread_local! {
    /// One inbox for all sockets of a thread. It is empty whenever a task waits.
    static INBOX: Cell<Option<Box<Inbox>>> = const { Cell::new(None) };
}

/// Lends the thread's inbox, empty.
pub(crate) fn borrow<R>(work: impl FnOnce(&mut Inbox) -> R) -> R {
    let mut inbox = INBOX.take().unwrap_or_else(Inbox::new);
    inbox.lengths.clear();
    let done = work(&mut inbox);
    INBOX.set(Some(inbox));
    done
}

pub(crate) struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    /// Only pages that datagrams have filled use memory.
    room: Vec<u8>,
    lengths: Vec<usize>,
}

impl Inbox {
    fn new() -> Box<Self> {
        Box::new(Self {
            // The headers have room for addresses, which are not used: the kernel writes the length
            // of the address into each header, and takes it for the available room the next time.
            headers: MultiHeaders::preallocate(MAX_RECEIVED, None),
            room: vec![0; MAX_RECEIVED * ROOM],
            lengths: Vec::with_capacity(MAX_RECEIVED),
        })
    }

    /// Receives the waiting datagrams, at most [`MAX_RECEIVED`], and returns their number.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> nix::Result<usize> {
        self.lengths.clear();
        let mut rooms = self.room.chunks_exact_mut(ROOM);
        let mut slices: [_; MAX_RECEIVED] =
            std::array::from_fn(|_| [IoSliceMut::new(rooms.next().unwrap_or_default())]);
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        self.lengths.extend(received.map(|message| message.bytes));
        Ok(self.lengths.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    pub(crate) fn received(&self) -> Received<'_> {
        Received {
            room: &self.room,
            lengths: self.lengths.iter(),
        }
    }
}

/// The received datagrams.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    room: &'a [u8],
    lengths: std::slice::Iter<'a, usize>,
}

impl<'a> Iterator for Received<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let length = *self.lengths.next()?;
        let (here, rest) = self.room.split_at_checked(ROOM)?;
        self.room = rest;
        debug_assert!(
            length <= ROOM,
            "the kernel fills at most the room of a datagram"
        );
        here.get(..length)
    }
}
