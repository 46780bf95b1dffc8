//! UDP sockets that send and receive several datagrams by one system call.
//!
//! The cost of a datagram is its system call and its path through the network stack, not its bytes.
//! Datagrams of one size are sent as segments of one packet ([`Segments`]), which the kernel splits
//! as late as possible; receivers get single datagrams. One call receives all waiting datagrams
//! ([`Batched`]).

#![deny(unsafe_code)]

mod batched;
mod inbox;
mod segments;

pub use batched::Batched;
pub use inbox::{MAX_RECEIVED, Received};
pub use segments::{MAX_SENT, Segments};

/// Largest payload of a UDP datagram over IPv4, in bytes.
pub const MAX_DATAGRAM: usize = 65_507;

/// The datagrams that one call has sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The number of datagrams.
    pub datagrams: usize,
    /// The bytes in them.
    pub bytes: u64,
}

impl Taken {
    /// Counts another datagram.
    pub fn add(&mut self, datagram: &[u8]) {
        self.datagrams += 1;
        self.bytes += datagram.len() as u64;
    }
}

impl<'a> FromIterator<&'a [u8]> for Taken {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(datagrams: I) -> Self {
        let mut taken = Self::default();
        for datagram in datagrams {
            taken.add(datagram);
        }
        taken
    }
}
