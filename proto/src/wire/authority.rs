//! Targets in requests: `:authority`, the path of connect-udp, and the header with candidates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderName;

use crate::{HOST_ALIAS, Target, TargetHost};

/// Header with the addresses to try after the one in the authority or path.
///
/// It is a comma-separated list of quoted addresses (a List of Strings, RFC 9651).
pub static CANDIDATES: HeaderName = HeaderName::from_static("odyn-candidates");

/// Most addresses of one target, the first included.
pub const MAX_CANDIDATES: usize = 64;

/// Start of the path of a connect-udp request (RFC 9298 section 3.1).
pub const UDP_PREFIX: &str = "/.well-known/masque/udp/";

/// Why a request has no valid target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The authority is not `address:port`.
    #[error("the target is not an address and a port")]
    Malformed,
    /// The port is missing, 0 or too large.
    #[error("the target's port is not in 1 to 65535")]
    Port,
    /// The host part is neither an address nor [`HOST_ALIAS`].
    #[error("the target's host is not an address")]
    Host,
    /// The header with the candidates is malformed.
    #[error("the list of candidates is malformed")]
    Candidates,
    /// There are more addresses than [`MAX_CANDIDATES`].
    #[error("too many candidates")]
    TooMany,
    /// There is no address.
    #[error("the target has no address")]
    Empty,
}

/// The target of a CONNECT request.
///
/// `candidates` is the value of [`CANDIDATES`], if there is one.
///
/// # Errors
/// Either is malformed, or there are candidates for the host's loopback.
pub fn parse_connect(authority: &str, candidates: Option<&[u8]>) -> Result<Target, TargetError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once("]:").ok_or(TargetError::Malformed)?;
        // Only IPv6 addresses have brackets.
        let host: Ipv6Addr = host.parse().map_err(|_| TargetError::Host)?;
        (AuthorityHost::Address(IpAddr::V6(host)), port)
    } else {
        let (host, port) = authority.split_once(':').ok_or(TargetError::Malformed)?;
        (parse_host_v4(host)?, port)
    };
    assemble(host, port, candidates)
}

/// The target of a connect-udp request, from its path.
///
/// # Errors
/// As [`parse_connect`].
pub fn parse_udp_path(path: &str, candidates: Option<&[u8]>) -> Result<Target, TargetError> {
    let rest = path
        .strip_prefix(UDP_PREFIX)
        .ok_or(TargetError::Malformed)?;
    let rest = rest.strip_suffix('/').ok_or(TargetError::Malformed)?;
    let (host, port) = rest.split_once('/').ok_or(TargetError::Malformed)?;
    // RFC 9298 section 3: the colons of an IPv6 address are percent-encoded.
    let host = if host.contains('%') {
        let plain = host.replace("%3A", ":").replace("%3a", ":");
        AuthorityHost::Address(IpAddr::V6(plain.parse().map_err(|_| TargetError::Host)?))
    } else {
        parse_host_v4(host)?
    };
    assemble(host, port, candidates)
}

enum AuthorityHost {
    Address(IpAddr),
    Parent,
}

fn parse_host_v4(host: &str) -> Result<AuthorityHost, TargetError> {
    if host == HOST_ALIAS {
        return Ok(AuthorityHost::Parent);
    }
    let address: Ipv4Addr = host.parse().map_err(|_| TargetError::Host)?;
    Ok(AuthorityHost::Address(IpAddr::V4(address)))
}

fn assemble(
    host: AuthorityHost,
    port: &str,
    candidates: Option<&[u8]>,
) -> Result<Target, TargetError> {
    // `u16::from_str` would accept a sign.
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TargetError::Port);
    }
    let port = match port.parse() {
        Ok(0) | Err(_) => return Err(TargetError::Port),
        Ok(port) => port,
    };
    let host = match (host, candidates) {
        (AuthorityHost::Parent, None) => TargetHost::HostLoopback,
        (AuthorityHost::Parent, Some(_)) => return Err(TargetError::Candidates),
        (AuthorityHost::Address(first), None) => TargetHost::Addresses(vec![first]),
        (AuthorityHost::Address(first), Some(list)) => {
            let mut all = vec![first];
            parse_candidates(list, &mut all)?;
            TargetHost::Addresses(all)
        }
    };
    Ok(Target { host, port })
}

fn parse_candidates(list: &[u8], into: &mut Vec<IpAddr>) -> Result<(), TargetError> {
    let list = std::str::from_utf8(list).map_err(|_| TargetError::Candidates)?;
    for item in list.split(',') {
        let item = item.trim_matches([' ', '\t']);
        let quoted = item
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .ok_or(TargetError::Candidates)?;
        if into.len() >= MAX_CANDIDATES {
            return Err(TargetError::TooMany);
        }
        into.push(quoted.parse().map_err(|_| TargetError::Candidates)?);
    }
    Ok(())
}

/// The `:authority` of a CONNECT request, and the value of [`CANDIDATES`].
///
/// # Errors
/// The target has no address, too many, or port 0.
pub fn write_connect(target: &Target) -> Result<(String, Option<String>), TargetError> {
    let (first, rest) = split(target)?;
    let authority = match first {
        None => format!("{HOST_ALIAS}:{}", target.port),
        Some(IpAddr::V4(v4)) => format!("{v4}:{}", target.port),
        Some(IpAddr::V6(v6)) => format!("[{v6}]:{}", target.port),
    };
    Ok((authority, write_candidates(rest)))
}

/// The path of a connect-udp request, and the value of [`CANDIDATES`].
///
/// # Errors
/// As [`write_connect`].
pub fn write_udp_path(target: &Target) -> Result<(String, Option<String>), TargetError> {
    let (first, rest) = split(target)?;
    let host = match first {
        None => HOST_ALIAS.to_owned(),
        Some(IpAddr::V4(v4)) => v4.to_string(),
        Some(IpAddr::V6(v6)) => v6.to_string().replace(':', "%3A"),
    };
    Ok((
        format!("{UDP_PREFIX}{host}/{}/", target.port),
        write_candidates(rest),
    ))
}

fn split(target: &Target) -> Result<(Option<IpAddr>, &[IpAddr]), TargetError> {
    if target.port == 0 {
        return Err(TargetError::Port);
    }
    match &target.host {
        TargetHost::HostLoopback => Ok((None, &[])),
        TargetHost::Addresses(list) if list.len() > MAX_CANDIDATES => Err(TargetError::TooMany),
        TargetHost::Addresses(list) => match list.as_slice() {
            [] => Err(TargetError::Empty),
            [first, rest @ ..] => Ok((Some(*first), rest)),
        },
    }
}

fn write_candidates(rest: &[IpAddr]) -> Option<String> {
    if rest.is_empty() {
        return None;
    }
    let quoted: Vec<String> = rest
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    Some(quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str], port: u16) -> Target {
        let list = list.iter().map(|a| a.parse().unwrap()).collect();
        Target {
            host: TargetHost::Addresses(list),
            port,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for target in [
            addresses(&["192.0.2.1"], 443),
            addresses(&["2001:db8::1"], 1),
            addresses(&["2001:db8::1", "192.0.2.1", "::ffff:192.0.2.1"], 65535),
            Target::host_loopback(8080),
        ] {
            let (authority, candidates) = write_connect(&target).unwrap();
            let read = parse_connect(&authority, candidates.as_deref().map(str::as_bytes));
            assert_eq!(read, Ok(target.clone()), "{authority}");
            let (path, candidates) = write_udp_path(&target).unwrap();
            let read = parse_udp_path(&path, candidates.as_deref().map(str::as_bytes));
            assert_eq!(read, Ok(target), "{path}");
            // It must survive the `http` crate too.
            path.parse::<http::Uri>().unwrap();
            authority.parse::<http::uri::Authority>().unwrap();
        }
    }

    #[test]
    fn malformed_targets_are_refused() {
        for (authority, error) in [
            ("", TargetError::Malformed),
            ("192.0.2.1", TargetError::Malformed),
            ("192.0.2.1:", TargetError::Port),
            ("192.0.2.1:0", TargetError::Port),
            ("192.0.2.1:+80", TargetError::Port),
            ("192.0.2.1:65536", TargetError::Port),
            ("example.com:80", TargetError::Host),
            ("[192.0.2.1]:80", TargetError::Host),
            ("[fe80::1%eth0]:80", TargetError::Host),
            ("[::1:80", TargetError::Malformed),
            ("::1:80", TargetError::Host),
            ("HOST:80", TargetError::Host),
        ] {
            assert_eq!(parse_connect(authority, None), Err(error), "{authority}");
        }
        for path in [
            "/",
            "/.well-known/masque/udp/1.2.3.4/5",
            "/.well-known/masque/udp/1.2.3.4//",
        ] {
            assert!(parse_udp_path(path, None).is_err(), "{path}");
        }
    }

    #[test]
    fn candidates_are_bounded_and_only_addresses() {
        for list in [
            "",
            "1.2.3.4",
            "\"1.2.3.4\",",
            "\"a\"",
            "\"1.2.3.4\" \"1.2.3.4\"",
        ] {
            let read = parse_connect("192.0.2.1:1", Some(list.as_bytes()));
            assert_eq!(read, Err(TargetError::Candidates), "{list}");
        }
        let many = ["\"1.2.3.4\""; MAX_CANDIDATES].join(",");
        assert_eq!(
            parse_connect("192.0.2.1:1", Some(many.as_bytes())),
            Err(TargetError::TooMany)
        );
        assert_eq!(
            parse_connect("host:1", Some(b"\"1.2.3.4\"")),
            Err(TargetError::Candidates),
            "the loopback has no further candidates"
        );
        let none = Target {
            host: TargetHost::Addresses(vec![]),
            port: 1,
        };
        assert_eq!(write_connect(&none), Err(TargetError::Empty));
    }
}
