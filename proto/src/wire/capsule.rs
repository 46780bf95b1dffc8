//! Capsules (RFC 9297 section 3.2) with UDP datagrams in them (RFC 9298 section 5).
//!
//! ```text
//! type (varint) | length (varint) | context id (varint, 0 = UDP payload) | payload
//!                                  `------------------ length ------------------'
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest payload of a UDP datagram over IPv4, in bytes.
pub const MAX_DATAGRAM: usize = 65_507;

/// Most bytes that the capsule adds to a datagram: type, length of four bytes, context id.
pub const OVERHEAD: usize = 6;

/// The DATAGRAM capsule.
const DATAGRAM: u64 = 0;

/// Bytes that are not a capsule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapsuleError {
    /// A DATAGRAM capsule is longer than any datagram.
    #[error("a datagram of {0} bytes")]
    TooLong(u64),
    /// The stream ended inside a capsule.
    #[error("the stream ended inside a capsule")]
    Truncated,
}

/// Writes a datagram.
pub fn encode(payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + OVERHEAD);
    put(&mut out, payload);
    out.freeze()
}

/// Appends a datagram.
pub fn put(out: &mut BytesMut, payload: &[u8]) {
    put_varint(out, DATAGRAM);
    put_varint(out, payload.len() as u64 + 1);
    put_varint(out, 0);
    out.put_slice(payload);
}

/// A variable-length integer (RFC 9000 section 16). Values over 2^62 would be cut; none is that
/// large.
fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(value as u16 | 0x4000),
        0x4000..=0x3fff_ffff => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value & 0x3fff_ffff_ffff_ffff | 0xc000_0000_0000_0000),
    }
}

/// Reads a variable-length integer and its length; `None` if it is not complete.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = 1usize << (first >> 6);
    let mut value = u64::from(first & 0x3f);
    for byte in bytes.get(1..len)? {
        value = value << 8 | u64::from(*byte);
    }
    Some((value, len))
}

/// Splits a stream of bytes into datagrams. Holds at most one capsule, and no unknown one.
#[derive(Debug, Default)]
pub struct CapsuleDecoder {
    /// The pushed bytes that have not been parsed.
    input: Bytes,
    /// The start of an incomplete capsule.
    partial: BytesMut,
    /// The number of missing bytes of an unknown capsule.
    skip: u64,
}

impl CapsuleDecoder {
    /// Adds bytes. Call it only after [`CapsuleDecoder::next`] has returned `None`.
    pub fn push(&mut self, bytes: Bytes) {
        if self.input.is_empty() && self.partial.is_empty() {
            self.input = bytes;
            return;
        }
        self.partial
            .extend_from_slice(&std::mem::take(&mut self.input));
        self.partial.extend_from_slice(&bytes);
    }

    /// The next datagram; `None` if more bytes are needed.
    ///
    /// # Errors
    /// A datagram is longer than [`MAX_DATAGRAM`]. The stream cannot be read further.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Bytes>, CapsuleError> {
        loop {
            self.skip_some();
            let bytes: &[u8] = if self.partial.is_empty() {
                &self.input
            } else {
                &self.partial
            };
            let Some((kind, kind_len)) = varint(bytes) else {
                return Ok(self.starve());
            };
            let Some((len, len_len)) = bytes.get(kind_len..).and_then(varint) else {
                return Ok(self.starve());
            };
            let head = kind_len + len_len;
            if kind != DATAGRAM {
                self.advance(head);
                self.skip = len;
                continue;
            }
            // The context id may take up to eight bytes.
            if len > MAX_DATAGRAM as u64 + 8 {
                return Err(CapsuleError::TooLong(len));
            }
            let len = len as usize;
            let Some(body) = bytes.get(head..head + len) else {
                return Ok(self.starve());
            };
            match varint(body) {
                Some((0, context_len)) if len - context_len > MAX_DATAGRAM => {
                    return Err(CapsuleError::TooLong((len - context_len) as u64));
                }
                Some((0, context_len)) => {
                    self.advance(head + context_len);
                    return Ok(Some(self.take(len - context_len)));
                }
                // Another context (RFC 9298 section 4), or none: ignored.
                _ => self.advance(head + len),
            }
        }
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// The stream ends inside a capsule.
    pub fn finish(&self) -> Result<(), CapsuleError> {
        if self.input.is_empty() && self.partial.is_empty() && self.skip == 0 {
            Ok(())
        } else {
            Err(CapsuleError::Truncated)
        }
    }

    /// Moves the rest out of the shared buffer, so that the rest does not keep it alive.
    fn starve(&mut self) -> Option<Bytes> {
        if !self.input.is_empty() {
            self.partial
                .extend_from_slice(&std::mem::take(&mut self.input));
        }
        None
    }

    fn skip_some(&mut self) {
        let there = if self.partial.is_empty() {
            self.input.len()
        } else {
            self.partial.len()
        };
        let now = usize::try_from(self.skip).unwrap_or(usize::MAX).min(there);
        self.advance(now);
        self.skip -= now as u64;
    }

    fn advance(&mut self, count: usize) {
        if self.partial.is_empty() {
            self.input.advance(count);
        } else {
            self.partial.advance(count);
        }
    }

    fn take(&mut self, count: usize) -> Bytes {
        if self.partial.is_empty() {
            self.input.split_to(count)
        } else {
            self.partial.split_to(count).freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut CapsuleDecoder) -> Result<Vec<Bytes>, CapsuleError> {
        let mut out = Vec::new();
        while let Some(datagram) = decoder.next()? {
            out.push(datagram);
        }
        Ok(out)
    }

    #[test]
    fn every_size_and_every_cut() {
        let mut wire = BytesMut::new();
        let sizes = [0, 1, 62, 63, 64, 1200, 16_382, 16_383, 16_384, MAX_DATAGRAM];
        let sent: Vec<Bytes> = sizes
            .iter()
            .map(|&n| (0..n).map(|i| i as u8).collect::<Vec<_>>().into())
            .collect();
        for datagram in &sent {
            let capsule = encode(datagram);
            assert!(capsule.len() <= datagram.len() + OVERHEAD);
            wire.put_slice(&capsule);
        }
        let wire = wire.freeze();
        for step in [1, 2, 7, 1000, 65_536, wire.len()] {
            let mut decoder = CapsuleDecoder::default();
            let mut got = Vec::new();
            for start in (0..wire.len()).step_by(step) {
                decoder.push(wire.slice(start..wire.len().min(start + step)));
                got.extend(all(&mut decoder).unwrap());
            }
            assert_eq!(got, sent, "step {step}");
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn unknown_capsules_and_contexts_are_skipped() {
        let mut wire = BytesMut::new();
        put_varint(&mut wire, 0x1234);
        put_varint(&mut wire, 100_000);
        wire.put_bytes(7, 100_000);
        // A datagram of context 5, an empty DATAGRAM capsule, an empty unknown one.
        wire.put_slice(&[0, 3, 5, 1, 1, 0, 0, 9, 0]);
        wire.put_slice(&encode(b"after"));
        for step in [1, 1000, wire.len()] {
            let wire = wire.clone().freeze();
            let mut decoder = CapsuleDecoder::default();
            let mut got = Vec::new();
            for start in (0..wire.len()).step_by(step) {
                decoder.push(wire.slice(start..wire.len().min(start + step)));
                got.extend(all(&mut decoder).unwrap());
                assert!(
                    decoder.partial.len() <= 2 * step + 16,
                    "unknown bytes are not kept"
                );
            }
            assert_eq!(got, [Bytes::from_static(b"after")]);
        }
    }

    #[test]
    fn too_long_is_refused_before_it_is_there() {
        let mut wire = BytesMut::new();
        put_varint(&mut wire, 0);
        put_varint(&mut wire, MAX_DATAGRAM as u64 + 9);
        let mut decoder = CapsuleDecoder::default();
        decoder.push(wire.freeze());
        assert_eq!(
            decoder.next(),
            Err(CapsuleError::TooLong(MAX_DATAGRAM as u64 + 9))
        );

        let mut decoder = CapsuleDecoder::default();
        decoder.push(encode(&vec![0; MAX_DATAGRAM + 1]));
        assert_eq!(
            decoder.next(),
            Err(CapsuleError::TooLong(MAX_DATAGRAM as u64 + 1))
        );
    }

    #[test]
    fn a_cut_capsule_is_noticed() {
        let whole = encode(b"datagram");
        for cut in 1..whole.len() {
            let mut decoder = CapsuleDecoder::default();
            decoder.push(whole.slice(..cut));
            assert_eq!(decoder.next(), Ok(None));
            assert_eq!(
                decoder.finish(),
                Err(CapsuleError::Truncated),
                "cut at {cut}"
            );
        }
    }
}
