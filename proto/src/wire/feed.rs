//! Feeds: the request, the records, and the acknowledgements.
//!
//! ```text
//! POST /feed/NAME            odyn-guest: NAME   odyn-run: 32 hex digits
//!                            odyn-first: number of the first record that the guest still has
//! 200                        odyn-next: number of the record that the host wants next
//! guest → host  records      u32 length | u64 microseconds since the epoch | bytes
//! host → guest  numbers      u64: this many records are written durably
//! ```
//!
//! All numbers are big-endian. Records count from 0; END_STREAM is the end of the feed.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::identity::{GUEST, Identity, RUN};

/// Start of the path.
pub const PREFIX: &str = "/feed/";
/// Header with the number of the first record that the guest still has.
pub const FIRST: &str = "odyn-first";
/// Header of the answer: the number of the record that the host wants next.
pub const NEXT: &str = "odyn-next";

/// Longest payload of a record, in bytes.
pub const MAX_RECORD: usize = 64 * 1024;
/// Bytes of a record before its payload.
pub const OVERHEAD: usize = 12;
/// Longest name of a feed, in bytes.
pub const MAX_NAME: usize = 32;

/// Why a feed cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The feed's name is empty, too long, or has characters other than lower-case letters and
    /// digits.
    #[error("malformed name of a feed")]
    Name,
    /// The guest's name or run is missing or is not one.
    #[error("malformed identity of a guest")]
    Guest,
    /// A number of a record is missing or is not one.
    #[error("malformed number of a record")]
    Number,
    /// A record is longer than [`MAX_RECORD`].
    #[error("a record of {0} bytes is longer than {MAX_RECORD}")]
    TooLong(u32),
    /// The stream ended inside a record or a number.
    #[error("ended in the middle of a record")]
    Truncated,
}

/// A request for a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The name of the feed.
    pub name: String,
    /// The identity that the guest claims.
    pub guest: Identity,
    /// The first record that the guest still has.
    pub first: u64,
}

/// Reads the path and the headers of a request.
///
/// # Errors
/// A part is malformed.
pub fn parse_opening<'a>(
    path: &str,
    header: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Opening, FeedError> {
    let name = path.strip_prefix(PREFIX).ok_or(FeedError::Name)?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(fits) {
        return Err(FeedError::Name);
    }
    let text = |name| {
        let value = header(name).ok_or(FeedError::Guest)?;
        std::str::from_utf8(value).map_err(|_| FeedError::Guest)
    };
    Ok(Opening {
        name: name.to_owned(),
        guest: Identity {
            name: text(GUEST)?.parse().map_err(|_| FeedError::Guest)?,
            run: text(RUN)?.parse().map_err(|_| FeedError::Guest)?,
        },
        first: parse_number(header(FIRST).ok_or(FeedError::Number)?)?,
    })
}

/// Reads a number of a record in a header.
///
/// # Errors
/// The value is not decimal digits, or too large.
pub fn parse_number(value: &[u8]) -> Result<u64, FeedError> {
    let text = std::str::from_utf8(value).map_err(|_| FeedError::Number)?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FeedError::Number);
    }
    text.parse().map_err(|_| FeedError::Number)
}

/// One record of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRecord {
    /// The time of the record by the guest's clock, in microseconds since the epoch.
    pub at: u64,
    /// The content; at most [`MAX_RECORD`] bytes.
    pub bytes: Bytes,
}

impl FeedRecord {
    /// The length on the wire, in bytes.
    pub fn size(&self) -> usize {
        OVERHEAD + self.bytes.len()
    }

    /// Writes the record. A reader refuses content longer than [`MAX_RECORD`].
    pub fn encode(&self, out: &mut BytesMut) {
        debug_assert!(self.bytes.len() <= MAX_RECORD);
        out.put_u32(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        out.put_u64(self.at);
        out.put_slice(&self.bytes);
    }
}

/// Reads records from a stream in any chunks. Holds at most one record and the last chunk.
#[derive(Debug, Default)]
pub struct RecordDecoder {
    buffer: BytesMut,
}

impl RecordDecoder {
    /// The bytes that were pushed.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next record, if it is complete.
    ///
    /// # Errors
    /// The record is too long.
    pub fn record(&mut self) -> Result<Option<FeedRecord>, FeedError> {
        let Some((mut header, rest)) = self.buffer.split_at_checked(OVERHEAD) else {
            return Ok(None);
        };
        let length = header.get_u32();
        let at = header.get_u64();
        let size = length as usize;
        if size > MAX_RECORD {
            return Err(FeedError::TooLong(length));
        }
        if rest.len() < size {
            self.buffer.reserve(size - rest.len());
            return Ok(None);
        }
        self.buffer.advance(OVERHEAD);
        let bytes = self.buffer.split_to(size).freeze();
        Ok(Some(FeedRecord { at, bytes }))
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// The stream ended inside a record.
    pub fn finish(&self) -> Result<(), FeedError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(FeedError::Truncated)
        }
    }
}

/// Reads the host's acknowledgements. Only the newest counts.
#[derive(Debug, Default)]
pub struct AckDecoder {
    part: [u8; 8],
    have: usize,
}

impl AckDecoder {
    /// Reads bytes; `each` gets every number in turn.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn push<E>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        for &byte in bytes {
            self.part[self.have] = byte;
            self.have += 1;
            if self.have == self.part.len() {
                self.have = 0;
                each(u64::from_be_bytes(self.part))?;
            }
        }
        Ok(())
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// The stream ended inside a number.
    pub fn finish(&self) -> Result<(), FeedError> {
        if self.have == 0 {
            Ok(())
        } else {
            Err(FeedError::Truncated)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(guest: &str, run: &str, first: &str) -> Result<Opening, FeedError> {
        parse_opening("/feed/stdout", |name| match name {
            GUEST => Some(guest.as_bytes()),
            RUN => Some(run.as_bytes()),
            FIRST => Some(first.as_bytes()),
            _ => None,
        })
    }

    const ID: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn an_opening_is_read_strictly() {
        let read = opening("a", ID, "18446744073709551615").unwrap();
        assert_eq!(read.first, u64::MAX);
        assert_eq!(read.guest.run.to_string(), ID);
        for (guest, run, first) in [
            ("", ID, "0"),
            ("a b", ID, "0"),
            ("a", "0011", "0"),
            ("a", ID, ""),
            ("a", ID, "+1"),
            ("a", ID, "18446744073709551616"),
        ] {
            assert!(opening(guest, run, first).is_err(), "{guest} {run} {first}");
        }
        for path in ["/feed/", "/feed/A", "/feed/a/b", "/feed/..", "/x"] {
            assert_eq!(
                parse_opening(path, |_| Some(&b"0"[..])),
                Err(FeedError::Name),
                "{path}"
            );
        }
    }

    #[test]
    fn records_survive_however_the_stream_is_cut() {
        let records = [&b""[..], b"one\n", &[0xff; MAX_RECORD]].map(|bytes| FeedRecord {
            at: 7,
            bytes: Bytes::copy_from_slice(bytes),
        });
        let mut wire = BytesMut::new();
        for record in &records {
            record.encode(&mut wire);
        }
        for size in [1, 3, 4096, wire.len()] {
            let mut decoder = RecordDecoder::default();
            let mut got = Vec::new();
            for piece in wire.chunks(size) {
                decoder.push(piece);
                while let Some(record) = decoder.record().unwrap() {
                    got.push(record);
                }
            }
            assert_eq!(decoder.finish(), Ok(()));
            assert_eq!(got, records, "cut at every {size} bytes");
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_not_waited_for() {
        let mut decoder = RecordDecoder::default();
        decoder.push(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decoder.record(), Err(FeedError::TooLong(0x1_0001)));
        let mut decoder = RecordDecoder::default();
        decoder.push(&[0; 11]);
        assert_eq!(decoder.record(), Ok(None));
        assert_eq!(decoder.finish(), Err(FeedError::Truncated));
    }

    #[test]
    fn acknowledgements_may_come_in_pieces() {
        let mut decoder = AckDecoder::default();
        let mut got = Vec::new();
        for piece in [&[0, 0, 0, 0, 0, 0, 0, 1, 0][..], &[0, 0, 0, 0, 0, 0, 2]] {
            let each = |number| {
                got.push(number);
                Ok::<_, FeedError>(())
            };
            decoder.push(piece, each).unwrap();
        }
        assert_eq!(got, [1, 2]);
        assert_eq!(decoder.finish(), Ok(()));
    }
}
