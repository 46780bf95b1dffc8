//! Version 2: binary.

use std::net::SocketAddr;

use super::decode::HeaderError;
use super::{Header, MAX_V2};

pub(crate) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes before the addresses.
const HEAD: usize = 16;
/// Bytes of two addresses of Unix sockets.
const UNIX: usize = 216;
/// Bytes before the value of a TLV.
const TLV_HEAD: usize = 3;

/// The length of the whole header, once its first bytes are there.
pub(crate) fn length(taken: &[u8]) -> Result<Option<usize>, HeaderError> {
    let Some(head) = taken.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > MAX_V2 {
        return Err(HeaderError::Long);
    }
    Ok(Some(length))
}

/// Reads a whole header.
pub(crate) fn parse(header: &[u8]) -> Result<Header, HeaderError> {
    let (head, content) = header
        .split_first_chunk::<HEAD>()
        .ok_or(HeaderError::Truncated)?;
    match head[12] {
        // The rest must be skipped, whatever it contains.
        0x20 => return Ok(Header::Local),
        0x21 => {}
        _ => return Err(HeaderError::Command),
    }
    match head[13] {
        // The length of the addresses is not known.
        0x00 => Ok(Header::Unknown),
        0x11 => addresses::<4>(content),
        0x21 => addresses::<16>(content),
        0x31 => {
            let tlvs = content.get(UNIX..).ok_or(HeaderError::Truncated)?;
            skip(tlvs).map(|()| Header::Unknown)
        }
        _ => Err(HeaderError::Family),
    }
}

/// Reads two addresses of this many bytes, two ports, and TLVs.
fn addresses<const N: usize>(content: &[u8]) -> Result<Header, HeaderError>
where
    std::net::IpAddr: From<[u8; N]>,
{
    let take = || {
        let (source, rest) = content.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (ports, tlvs) = rest.split_first_chunk::<4>()?;
        let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        let header = Header::Proxied {
            source: SocketAddr::new((*source).into(), port(0)),
            destination: SocketAddr::new((*destination).into(), port(2)),
        };
        Some((header, tlvs))
    };
    let (header, tlvs) = take().ok_or(HeaderError::Truncated)?;
    skip(tlvs).map(|()| header)
}

/// Checks that TLVs are complete. Their content is not used.
fn skip(mut tlvs: &[u8]) -> Result<(), HeaderError> {
    while let Some((head, rest)) = tlvs.split_first_chunk::<TLV_HEAD>() {
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        tlvs = rest.get(length..).ok_or(HeaderError::Truncated)?;
    }
    match tlvs {
        [] => Ok(()),
        _ => Err(HeaderError::Truncated),
    }
}
