//! The protocol of lanes. A lane is a connection of the transport for one flow
//! (`link/src/flow/lane`).
//!
//! The host names each HTTP/2 connection by a header ([`HEADER`]) of its answers and requests; the
//! guest asks for a lane of a flow by that name and the number of the flow's stream:
//!
//! ```text
//!   guest                                         host
//!   dials; preamble, name, stream ──────────────▶ knows the flow
//!                                 ◀────────────── READY
//!   offset of the up direction ─────────────────▶
//!                                 ◀────────────── offset of the down direction
//!   bytes ◀─────────────────────────────────────▶ bytes
//! ```
//!
//! An offset is the number of bytes of that direction that went through HTTP/2; the bytes of the
//! lane follow them. A direction that has already ended has none ([`NO_OFFSET`]) and does not move.
//! The down direction also stays if the lane ends before its offset arrives. The guest may give up
//! until it has sent its offset.
//!
//! A direction that has moved ends with a last DATA frame on the stream, then END_STREAM. The frame
//! has the number of bytes that went through the lane, in eight bytes. A sender sends it only after
//! the peer's offset has arrived: from then on the peer knows the sender's offset, and so that the
//! frame is not payload. All numbers are in network byte order.

use http::HeaderName;

/// The first bytes of a lane: as long as HTTP/2's preface, with another first byte.
pub const PREAMBLE: &[u8; 24] = b"ODYN * ONELANE/1\r\n\r\nGO\r\n";

/// Header with the name of a connection, 32 hex digits.
pub static HEADER: HeaderName = HeaderName::from_static("odyn-lane");

/// The host's answer to a guest whose flow it knows.
pub const READY: u8 = 1;

/// Bytes of a [`LaneKey`].
pub const KEY_BYTES: usize = 20;

/// The value in place of an offset: the direction has ended and does not move.
pub const NO_OFFSET: u64 = u64::MAX;

/// Bytes of an offset, and of a direction's last frame.
pub const OFFSET_BYTES: usize = 8;

/// The name of a connection: 128 random bits, which only its two ends know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(pub u128);

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A peer that knows the name can take over a flow.
        f.write_str("Name(…)")
    }
}

/// The flow of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneKey {
    /// The connection.
    pub connection: Name,
    /// The stream (RFC 9113 section 5.1.1).
    pub stream: u32,
}

impl Name {
    /// The value of [`HEADER`].
    #[must_use]
    pub fn write(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Reads the value of [`HEADER`].
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if value.len() != 32 || !value.iter().all(is_hex) {
            return None;
        }
        let digits = std::str::from_utf8(value).ok()?;
        u128::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl LaneKey {
    /// The bytes after the preamble.
    #[must_use]
    pub fn write(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        let (name, stream) = bytes.split_at_mut(16);
        name.copy_from_slice(&self.connection.0.to_be_bytes());
        stream.copy_from_slice(&self.stream.to_be_bytes());
        bytes
    }

    /// Reads the bytes after the preamble.
    #[must_use]
    pub fn parse(bytes: &[u8; KEY_BYTES]) -> Self {
        let (mut name, mut stream) = ([0; 16], [0; 4]);
        let (first, rest) = bytes.split_at(16);
        name.copy_from_slice(first);
        stream.copy_from_slice(rest);
        Self {
            connection: Name(u128::from_be_bytes(name)),
            stream: u32::from_be_bytes(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was() {
        let key = LaneKey {
            connection: Name(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            stream: 0x7fff_ffff,
        };
        assert_eq!(LaneKey::parse(&key.write()), key);
        assert_eq!(
            Name::parse(key.connection.write().as_bytes()),
            Some(key.connection)
        );
    }

    #[test]
    fn a_name_is_32_lower_case_digits_and_nothing_else() {
        let good = "0123456789abcdef0123456789abcdef";
        assert!(Name::parse(good.as_bytes()).is_some());
        for bad in [
            "",
            "0",
            &good[1..],
            &format!("{good}0"),
            &good.to_uppercase(),
        ] {
            assert_eq!(Name::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Name::parse(&[0xff; 32]), None);
        assert_eq!(Name::parse(b"+123456789abcdef0123456789abcdef"), None);
    }

    #[test]
    fn a_name_is_not_shown() {
        assert!(!format!("{:?}", Name(7)).contains('7'));
    }
}
