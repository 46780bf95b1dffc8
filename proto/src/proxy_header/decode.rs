//! The decoder of headers, for bytes in any chunks.

use super::{Header, MAX_V1, MAX_V2, v1, v2};

/// Start of version 1.
const V1: &[u8] = b"PROXY ";

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first bytes are those of neither version.
    #[error("no header of the PROXY protocol")]
    NoHeader,
    /// A line of version 1 is too long.
    #[error("a header of version 1 that does not end within {MAX_V1} bytes")]
    LongLine,
    /// A line of version 1 is malformed.
    #[error("a malformed header of version 1")]
    Line,
    /// The version is not 2, or the command is unknown.
    #[error("an unknown version or command")]
    Command,
    /// The family or transport does not exist, or cannot be that of a stream.
    #[error("an address family or transport that a stream can't have")]
    Family,
    /// A header of version 2 is longer than any sender makes it.
    #[error("a header of version 2 of more than {MAX_V2} bytes")]
    Long,
    /// Addresses or TLVs do not fit into the header.
    #[error("a header of version 2 whose content does not fit")]
    Truncated,
}

/// Reads one header.
#[derive(Debug, Default)]
pub struct HeaderDecoder {
    taken: Vec<u8>,
}

impl HeaderDecoder {
    /// Takes bytes of the header from the front of `bytes`.
    ///
    /// Returns their number, and the header once it is complete; until then, all bytes are taken.
    ///
    /// # Errors
    /// The bytes are no header. The connection cannot be used any more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Header>), HeaderError> {
        let before = self.taken.len();
        for byte in bytes {
            self.taken.push(*byte);
            if let Some(header) = self.look()? {
                return Ok((self.taken.len() - before, Some(header)));
            }
        }
        Ok((bytes.len(), None))
    }

    /// Whether the last byte completed the header.
    fn look(&self) -> Result<Option<Header>, HeaderError> {
        let taken = self.taken.as_slice();
        let is_start = |of: &[u8]| taken.starts_with(of) || of.starts_with(taken);
        if is_start(V1) {
            if taken.ends_with(b"\r\n") {
                return v1::parse(taken).map(Some);
            }
            return match taken.len() < MAX_V1 {
                true => Ok(None),
                false => Err(HeaderError::LongLine),
            };
        }
        if !is_start(v2::SIGNATURE) {
            return Err(HeaderError::NoHeader);
        }
        let Some(length) = v2::length(taken)? else {
            return Ok(None);
        };
        if taken.len() < length {
            return Ok(None);
        }
        v2::parse(taken).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one piece, with bytes of the connection behind it; and byte by byte.
    fn decode(header: &[u8]) -> Result<Header, HeaderError> {
        let with_more = [header, b"more"].concat();
        let whole = HeaderDecoder::default().feed(&with_more);
        let mut decoder = HeaderDecoder::default();
        let mut bit_by_bit = None;
        for byte in &with_more {
            match decoder.feed(std::slice::from_ref(byte)) {
                Ok((1, None)) => {}
                Ok((_, Some(header))) => bit_by_bit = Some(Ok(header)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => bit_by_bit = Some(Err(error)),
            }
            if bit_by_bit.is_some() {
                break;
            }
        }
        match whole {
            Ok((count, Some(found))) => {
                assert_eq!(count, header.len(), "not a byte more");
                assert_eq!(bit_by_bit, Some(Ok(found)));
                Ok(found)
            }
            Ok((_, None)) => panic!("not complete"),
            Err(error) => {
                assert_eq!(bit_by_bit, Some(Err(error)));
                Err(error)
            }
        }
    }

    fn proxied(source: &str, destination: &str) -> Result<Header, HeaderError> {
        Ok(Header::Proxied {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        })
    }

    #[test]
    fn lines() {
        for (line, wanted) in [
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 40000 443",
                proxied("192.0.2.9:40000", "198.51.100.1:443"),
            ),
            (
                "PROXY TCP6 2001:db8::9 2001:DB8::1 65535 0",
                proxied("[2001:db8::9]:65535", "[2001:db8::1]:0"),
            ),
            ("PROXY UNKNOWN", Ok(Header::Unknown)),
            ("PROXY UNKNOWN ff:: what ever", Ok(Header::Unknown)),
            ("PROXY ", Err(HeaderError::Line)),
            ("PROXY UNKNOWNS", Err(HeaderError::Line)),
            ("PROXY TCP4", Err(HeaderError::Line)),
            (
                "PROXY TCP5 192.0.2.9 198.51.100.1 1 2",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 1",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 1 2 3",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.9  198.51.100.1 1 2",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 1 2 ",
                Err(HeaderError::Line),
            ),
            (
                "PROXY  TCP4 192.0.2.9 198.51.100.1 1 2",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 01 2",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 +1 2",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 65536 2",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.09 198.51.100.1 1 2",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 2001:db8::9 2001:db8::1 1 2",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP6 192.0.2.9 198.51.100.1 1 2",
                Err(HeaderError::Line),
            ),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 2", Err(HeaderError::Line)),
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 1 2\n",
                Err(HeaderError::Line),
            ),
            (
                "PROXY TCP4 192.0.2.9 198.51.100.1 1 \u{0661}",
                Err(HeaderError::Line),
            ),
            (
                "proxy TCP4 192.0.2.9 198.51.100.1 1 2",
                Err(HeaderError::NoHeader),
            ),
            ("GET / HTTP/1.1", Err(HeaderError::NoHeader)),
            ("", Err(HeaderError::NoHeader)),
        ] {
            let header = format!("{line}\r\n");
            assert_eq!(decode(header.as_bytes()), wanted, "{line:?}");
        }
    }

    #[test]
    fn a_line_has_107_bytes_at_most() {
        let line = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
        assert_eq!(decode(line(107).as_bytes()), Ok(Header::Unknown));
        assert_eq!(decode(line(108).as_bytes()), Err(HeaderError::LongLine));
    }

    fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&v2::SIGNATURE[..], &[command, family], &length, content].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 9, 198, 51, 100, 1, 0x9c, 0x40, 0x01, 0xbb];

    #[test]
    fn binary_headers() {
        let v4 = proxied("192.0.2.9:40000", "198.51.100.1:443");
        let with_tlvs = [&V4[..], &[0x01, 0, 2, b'h', b'2'], &[0x04, 0, 0]].concat();
        let cut_tlv = [&V4[..], &[0x01, 0, 2, b'h']].concat();
        let cut_tlv_head = [&V4[..], &[0x01, 0]].concat();
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[31] = 2;
        v6[33] = 3;
        for (header, wanted) in [
            (binary(0x21, 0x11, &V4), v4),
            (binary(0x21, 0x11, &with_tlvs), v4),
            (binary(0x21, 0x21, &v6), proxied("[::1]:3", "[::2]:0")),
            (binary(0x21, 0x31, &[0; 216]), Ok(Header::Unknown)),
            (binary(0x21, 0x00, &[]), Ok(Header::Unknown)),
            (binary(0x21, 0x00, b"anything"), Ok(Header::Unknown)),
            (binary(0x20, 0x11, &V4), Ok(Header::Local)),
            (binary(0x20, 0xff, b"skipped"), Ok(Header::Local)),
            (binary(0x20, 0x00, &[]), Ok(Header::Local)),
            (binary(0x22, 0x11, &V4), Err(HeaderError::Command)),
            (binary(0x11, 0x11, &V4), Err(HeaderError::Command)),
            (binary(0x21, 0x12, &V4), Err(HeaderError::Family)),
            (binary(0x21, 0x41, &V4), Err(HeaderError::Family)),
            (binary(0x21, 0x10, &V4), Err(HeaderError::Family)),
            (binary(0x21, 0x11, &V4[..11]), Err(HeaderError::Truncated)),
            (binary(0x21, 0x21, &V4), Err(HeaderError::Truncated)),
            (binary(0x21, 0x31, &V4), Err(HeaderError::Truncated)),
            (binary(0x21, 0x11, &cut_tlv), Err(HeaderError::Truncated)),
            (
                binary(0x21, 0x11, &cut_tlv_head),
                Err(HeaderError::Truncated),
            ),
            (binary(0x21, 0x00, &[0; MAX_V2]), Err(HeaderError::Long)),
            (binary(0x20, 0x00, &[0; MAX_V2 - 16]), Ok(Header::Local)),
        ] {
            assert_eq!(decode(&header), wanted, "{:x?}", &header[12..]);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        use super::super::{Tlv, write_v1, write_v2};
        let at = |text: &str| text.parse().unwrap();
        let tlvs = [Tlv::alpn(b"h2"), Tlv::authority("shop.example")];
        for (source, destination) in [
            ("192.0.2.9:40000", "198.51.100.1:443"),
            ("[2001:db8::9]:40000", "[2001:db8::1]:443"),
        ] {
            let header = proxied(source, destination);
            let (source, destination) = (at(source), at(destination));
            assert_eq!(decode(&write_v1(source, destination)), header);
            assert_eq!(decode(&write_v2(source, destination, &[])), header);
            assert_eq!(decode(&write_v2(source, destination, &tlvs)), header);
        }
        let mapped = write_v1(at("[::ffff:192.0.2.9]:1"), at("198.51.100.1:2"));
        assert_eq!(mapped, b"PROXY TCP4 192.0.2.9 198.51.100.1 1 2\r\n");
        let (four, six) = (at("192.0.2.9:1"), at("[2001:db8::1]:2"));
        assert_eq!(decode(&write_v1(four, six)), Ok(Header::Unknown));
        let both = proxied("[::ffff:192.0.2.9]:1", "[2001:db8::1]:2");
        assert_eq!(decode(&write_v2(four, six, &[])), both);
    }
}
