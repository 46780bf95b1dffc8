//! Version 1: a line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Header;
use super::decode::HeaderError;

/// Reads a line with its end.
pub(crate) fn parse(line: &[u8]) -> Result<Header, HeaderError> {
    header(line).ok_or(HeaderError::Line)
}

fn header(line: &[u8]) -> Option<Header> {
    let rest = line.strip_prefix(b"PROXY ")?.strip_suffix(b"\r\n")?;
    // The rest of a line after UNKNOWN must be ignored.
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Some(Header::Unknown);
    }
    let mut words = std::str::from_utf8(rest).ok()?.split(' ');
    let parse: fn(&str) -> Option<IpAddr> = match words.next()? {
        "TCP4" => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let source = parse(words.next()?)?;
    let destination = parse(words.next()?)?;
    let source = SocketAddr::new(source, port(words.next()?)?);
    let destination = SocketAddr::new(destination, port(words.next()?)?);
    words.next().is_none().then_some(Header::Proxied {
        source,
        destination,
    })
}

/// Reads digits without a sign and without leading zeros.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain || (word.len() > 1 && word.starts_with('0')) {
        return None;
    }
    word.parse().ok()
}
