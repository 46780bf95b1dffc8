//! UDP sockets that take and give several datagrams by one system call.
//!
//! What a datagram costs is its system call and its way through the network stack, not its bytes.
//! Datagrams of one size are sent as segments of one packet ([`Segments`]), which the kernel takes
//! apart as late as it can; each receiver gets what was given, one by one. Received are as many
//! datagrams as are there ([`Batched`]).

#![deny(unsafe_code)]

mod batched;
mod inbox;
mod segments;

pub use batched::Batched;
pub use inbox::{MAX_RECEIVED, Received};
pub use segments::{MAX_SENT, Segments};

/// Largest payload of a UDP datagram over IPv4, in bytes.
pub const MAX_DATAGRAM: usize = 65_507;

/// What was taken of several datagrams.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Datagrams.
    pub datagrams: usize,
    /// Bytes in them.
    pub bytes: u64,
}

impl Taken {
    /// Counts one more.
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
