//! The `proxy-status` header (RFC 9209), with the result of a dial.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::{HeaderName, StatusCode};

use crate::Refusal;

/// Name of the header.
pub static HEADER: HeaderName = HeaderName::from_static("proxy-status");

/// Name of the host in the header.
pub const PROXY: &str = "enclaver-outer";

/// Longest value that is read, in bytes.
const MAX_LEN: usize = 4096;

/// The content of a `proxy-status` value.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ProxyStatus {
    /// The address that was dialled.
    pub next_hop: Option<SocketAddr>,
    /// The error type, if it is a known one.
    pub error: Option<Refusal>,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 9] = [
        Self::ConnectionRefused,
        Self::ConnectionTimeout,
        Self::Unroutable,
        Self::Prohibited,
        Self::LimitReached,
        Self::DnsTimeout,
        Self::DnsError,
        Self::BadRequest,
        Self::Internal,
    ];

    /// The error type of RFC 9209 section 2.3.
    pub fn token(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::Unroutable => "destination_ip_unroutable",
            Self::Prohibited => "destination_ip_prohibited",
            Self::LimitReached => "connection_limit_reached",
            Self::DnsTimeout => "dns_timeout",
            Self::DnsError => "dns_error",
            Self::BadRequest => "http_request_error",
            Self::Internal => "proxy_internal_error",
        }
    }

    /// The status code of the response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::ConnectionRefused | Self::Unroutable | Self::DnsError => StatusCode::BAD_GATEWAY,
            Self::ConnectionTimeout | Self::DnsTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Prohibited => StatusCode::FORBIDDEN,
            Self::LimitReached => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The refusal of a response, by its `proxy-status` or else by its status code.
    pub fn from_response(status: StatusCode, header: Option<&[u8]>) -> Self {
        if let Some(error) = header.and_then(parse).and_then(|parsed| parsed.error) {
            return error;
        }
        match status {
            StatusCode::BAD_GATEWAY => Self::ConnectionRefused,
            StatusCode::GATEWAY_TIMEOUT => Self::ConnectionTimeout,
            StatusCode::FORBIDDEN => Self::Prohibited,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Self::LimitReached,
            code if code.is_client_error() => Self::BadRequest,
            _ => Self::Internal,
        }
    }
}

/// The value for a dial that succeeded.
pub fn write_next_hop(address: SocketAddr) -> String {
    format!("{PROXY}; next-hop=\"{address}\"")
}

/// The value for a dial that failed.
pub fn write_error(refusal: Refusal) -> String {
    format!("{PROXY}; error={}", refusal.token())
}

/// Reads a value: one member with its parameters.
///
/// `None` if the value is malformed or has several members: the link has one proxy only.
pub fn parse(value: &[u8]) -> Option<ProxyStatus> {
    if value.len() > MAX_LEN {
        return None;
    }
    let mut rest = ItemCursor(std::str::from_utf8(value).ok()?);
    rest.blanks();
    rest.bare_item()?;
    let mut status = ProxyStatus::default();
    loop {
        rest.blanks();
        if rest.0.is_empty() {
            return Some(status);
        }
        rest.eat(';')?;
        rest.blanks();
        let key = rest.word()?;
        // A key alone is a boolean.
        let value = if rest.eat('=').is_some() {
            rest.bare_item()?
        } else {
            Cow::default()
        };
        match key {
            "next-hop" => status.next_hop = value.parse().ok(),
            "error" => status.error = Refusal::ALL.into_iter().find(|r| r.token() == value),
            _ => {}
        }
    }
}

struct ItemCursor<'a>(&'a str);

impl<'a> ItemCursor<'a> {
    fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, wanted: char) -> Option<()> {
        self.0 = self.0.strip_prefix(wanted)?;
        Some(())
    }

    /// Reads a token or key (RFC 9651 sections 3.3.4 and 3.1.2), loosely.
    fn word(&mut self) -> Option<&'a str> {
        let end = self
            .0
            .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(c)))
            .unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Reads a token, number or string (RFC 9651 section 3.3).
    fn bare_item(&mut self) -> Option<Cow<'a, str>> {
        if self.eat('"').is_none() {
            return self.word().map(Cow::Borrowed);
        }
        // Most strings have no escapes and are borrowed; one with escapes is copied below.
        let plain = self.0.find(['"', '\\'])?;
        let (start, rest) = self.0.split_at_checked(plain)?;
        if !start.bytes().all(is_text) {
            return None;
        }
        if let Some(rest) = rest.strip_prefix('"') {
            self.0 = rest;
            return Some(Cow::Borrowed(start));
        }
        let mut out = start.to_owned();
        let mut chars = rest.chars();
        loop {
            match chars.next()? {
                '"' => {
                    self.0 = chars.as_str();
                    return Some(Cow::Owned(out));
                }
                '\\' => match chars.next()? {
                    c @ ('"' | '\\') => out.push(c),
                    _ => return None,
                },
                c if u8::try_from(c).is_ok_and(is_text) => out.push(c),
                _ => return None,
            }
        }
    }
}

/// Whether a byte is printable ASCII.
fn is_text(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for address in ["192.0.2.1:443", "[2001:db8::1]:1"] {
            let address = address.parse().unwrap();
            let read = parse(write_next_hop(address).as_bytes());
            assert_eq!(
                read,
                Some(ProxyStatus {
                    next_hop: Some(address),
                    error: None
                })
            );
        }
        for refusal in Refusal::ALL {
            let value = write_error(refusal);
            let read = parse(value.as_bytes());
            assert_eq!(
                read,
                Some(ProxyStatus {
                    next_hop: None,
                    error: Some(refusal)
                })
            );
            assert_eq!(
                Refusal::from_response(StatusCode::OK, Some(value.as_bytes())),
                refusal
            );
        }
    }

    #[test]
    fn others_headers_are_understood() {
        let read = parse(br#"ExampleCDN; received-status=200;error=connection_refused; details="a \"b\" ; c"; flag"#);
        assert_eq!(read.unwrap().error, Some(Refusal::ConnectionRefused));
        assert_eq!(
            parse(br#""quoted name"; error=novel"#),
            Some(ProxyStatus::default())
        );
    }

    #[test]
    fn malformed_headers_are_refused() {
        for value in [
            "",
            ";",
            "a;",
            "a; =b",
            "a; b=\"",
            "a; b=\"\\x\"",
            "a, b",
            "a; b=\"\u{7}\"",
        ] {
            assert_eq!(parse(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(parse(&[0xff]), None);
        assert_eq!(parse(&vec![b'a'; MAX_LEN + 1]), None);
    }

    #[test]
    fn a_status_alone_is_enough() {
        for (status, refusal) in [
            (StatusCode::BAD_GATEWAY, Refusal::ConnectionRefused),
            (StatusCode::GATEWAY_TIMEOUT, Refusal::ConnectionTimeout),
            (StatusCode::FORBIDDEN, Refusal::Prohibited),
            (StatusCode::SERVICE_UNAVAILABLE, Refusal::LimitReached),
            (StatusCode::NOT_FOUND, Refusal::BadRequest),
            (StatusCode::IM_A_TEAPOT, Refusal::BadRequest),
            (StatusCode::INTERNAL_SERVER_ERROR, Refusal::Internal),
        ] {
            assert_eq!(Refusal::from_response(status, Some(b"garbage,")), refusal);
        }
    }
}
