//! The destination of a rule: `host`, an address or network, or a pattern of names.
//!
//! A text that looks like an address and is none is an error, never a name. A mistyped CIDR that
//! became a name pattern would be a rule without effect.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use odyn_proto::{DnsName, DnsNameError, HOST_ALIAS, dns_name};

use crate::pattern::{Pattern, PatternError};
use crate::rule::RuleTarget;
use crate::{codes, yaml};

/// Why a text is not a destination.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DestinationProblem {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl DestinationProblem {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

pub(super) fn parse(text: &str) -> Result<RuleTarget, DestinationProblem> {
    if text.eq_ignore_ascii_case(HOST_ALIAS) {
        return Ok(RuleTarget::Host);
    }
    if text.is_empty() {
        return Err(DestinationProblem::new(
            codes::BAD_NAME,
            "the destination is empty",
        ));
    }
    // No name is that long in any script; the messages below repeat the text.
    if text.len() > 4 * DnsName::MAX_LEN {
        let message = format!("`{}` is too long for a destination", yaml::short(text));
        return Err(DestinationProblem::new(codes::BAD_NAME, message));
    }
    if let Some(problem) = other_form(text) {
        return Err(problem);
    }
    if looks_like_address(text) {
        return network(text).map(RuleTarget::Net);
    }
    Pattern::parse(text)
        .map(RuleTarget::Name)
        .map_err(|error| name_problem(text, &error))
}

/// Forms that other tools use.
fn other_form(text: &str) -> Option<DestinationProblem> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#', ':']).next().unwrap_or_default();
        let problem =
            DestinationProblem::new(codes::BAD_DESTINATION, "a destination is a host, not a URL");
        return Some(if host.is_empty() {
            problem
        } else {
            problem.help(format!("write `{host}`; rules cannot match URL paths"))
        });
    }
    if text.trim() != text {
        let problem =
            DestinationProblem::new(codes::BAD_NAME, "the destination has spaces around it");
        return Some(problem.help(format!("write `{}`", text.trim())));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').unwrap_or((rest, ""));
        let problem = DestinationProblem::new(
            codes::BAD_DESTINATION,
            "an address in a rule has no brackets",
        );
        return Some(match port.strip_prefix(':') {
            Some(port) => problem.help(long_form(address, port)),
            None => problem.help(format!("write `{address}`")),
        });
    }
    // One colon: host and port. More: an IPv6 address.
    if let Some((host, port)) = text.split_once(':')
        && !port.contains(':')
    {
        let problem = DestinationProblem::new(
            codes::BAD_DESTINATION,
            "a destination cannot include a port",
        );
        return Some(problem.help(long_form(host, port)));
    }
    None
}

fn long_form(host: &str, port: &str) -> String {
    format!("use the long form: `{{ to: \"{host}\", ports: [{port}] }}`")
}

/// Whether the text was probably meant as an address.
fn looks_like_address(text: &str) -> bool {
    if text.contains(['/', ':', '%']) {
        return true;
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or_default();
    let digits_and_stars = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'*' | b'-' | b',' | b'x' | b'X'));
    dns_name::is_numeric_label(last)
        || (digits_and_stars && text.bytes().any(|b| b.is_ascii_digit()) && text.contains('.'))
}

fn network(text: &str) -> Result<IpNet, DestinationProblem> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| address_problem(text, address, prefix))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let Some(prefix) = prefix else {
        return Ok(unmapped(IpNet::from(address)));
    };
    let plain = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let len = prefix
        .parse::<u8>()
        .ok()
        .filter(|len| plain && *len <= longest && (prefix.len() == 1 || !prefix.starts_with('0')));
    let Some(net) = len.and_then(|len| IpNet::new(address, len).ok()) else {
        let message = format!("`{text}` is not a network: `/{prefix}` is not a prefix length");
        let problem = DestinationProblem::new(codes::BAD_ADDRESS, message);
        return Err(match netmask(prefix) {
            Some(len) => problem.help(format!("write `{address}/{len}`")),
            None => problem.help(format!("it must be a number from 0 to {longest}")),
        });
    };
    if net.trunc() != net {
        let message = format!(
            "`{text}` has bits set beyond its prefix of {} bits",
            net.prefix_len()
        );
        return Err(
            DestinationProblem::new(codes::HOST_BITS, message).help(format!(
                "write `{}` for the network or `{address}` for the one address",
                net.trunc()
            )),
        );
    }
    Ok(unmapped(net))
}

/// Converts an IPv4-mapped network to IPv4, as decisions convert addresses.
fn unmapped(net: IpNet) -> IpNet {
    if let IpNet::V6(v6) = net
        && let Some(len) = v6.prefix_len().checked_sub(96)
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, len)
    {
        return IpNet::V4(v4);
    }
    net
}

/// The prefix length that `255.255.0.0` stands for.
fn netmask(text: &str) -> Option<u8> {
    let mask: Ipv4Addr = text.parse().ok()?;
    ipnet::ipv4_mask_to_prefix(mask).ok()
}

fn address_problem(text: &str, address: &str, prefix: Option<&str>) -> DestinationProblem {
    let problem = |why: &str| {
        let what = if prefix.is_some() {
            "a network"
        } else {
            "an address"
        };
        DestinationProblem::new(codes::BAD_ADDRESS, format!("`{text}` is not {what}: {why}"))
    };
    let suffix = prefix.map(|p| format!("/{p}")).unwrap_or_default();
    if let Some((bare, zone)) = address.split_once('%') {
        return problem("a zone has a meaning on one machine only")
            .help(format!("write `{bare}{suffix}` without `%{zone}`"));
    }
    if address.contains(':') {
        return problem("it contains a colon and is not an IPv6 address")
            .help("for example `2001:db8::/32`");
    }
    let parts: Vec<&str> = address.split('.').collect();
    if parts.iter().any(|p| p.contains('*')) {
        let help = star_network(&parts).map(|net| format!("write `{net}`"));
        let mut problem = problem("stars are for names, networks are written with a prefix length");
        problem.help = help.or(Some("for example `10.1.0.0/16`".to_owned()));
        return problem;
    }
    if parts.iter().any(|p| p.contains(['-', ','])) {
        return problem("ranges and lists of addresses are not supported")
            .help("write networks such as `10.1.0.0/28`, one entry each");
    }
    if parts.iter().any(|p| !p.bytes().all(|b| b.is_ascii_digit())) {
        if prefix.is_some() && Pattern::parse(address).is_ok() {
            return problem("a name has no prefix length")
                .help(format!("write `{address}`; rules cannot match URL paths"));
        }
        return problem("an IPv4 address is four decimal numbers").help("for example `10.1.2.3`");
    }
    if parts.iter().any(|p| p.is_empty()) {
        return problem("it has an extra dot");
    }
    if parts.len() != 4 {
        let why = format!("expected 4 numbers, found {}", parts.len());
        let problem = problem(&why);
        return match padded(&parts) {
            Some(full) if prefix.is_some() => problem.help(format!("write `{full}{suffix}`")),
            _ => problem.help("for example `10.1.2.3`"),
        };
    }
    if let Some(large) = parts.iter().find(|p| p.parse::<u8>().is_err()) {
        return problem(&format!("{large} is more than 255"));
    }
    let decimal: Vec<String> = parts
        .iter()
        .map(|p| p.parse::<u8>().unwrap_or_default().to_string())
        .collect();
    problem("numbers with a leading zero can mean octal").help(format!(
        "write `{}{suffix}` without the zeros if it is decimal",
        decimal.join(".")
    ))
}

/// `10.1.*.*` as a network.
fn star_network(parts: &[&str]) -> Option<IpNet> {
    let fixed = parts.iter().take_while(|p| !p.contains('*')).count();
    let (fixed, stars) = parts.split_at_checked(fixed)?;
    let tail_is_stars = stars.iter().all(|p| matches!(*p, "*" | "**"));
    if parts.len() > 4 || !tail_is_stars || fixed.is_empty() {
        return None;
    }
    let address = padded(fixed)?;
    let len = u8::try_from(fixed.len() * 8).ok()?;
    Some(IpNet::V4(Ipv4Net::new(address, len).ok()?))
}

/// `10.1` as `10.1.0.0`.
fn padded(parts: &[&str]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    if parts.len() > octets.len() {
        return None;
    }
    for (octet, part) in octets.iter_mut().zip(parts) {
        *octet = part.parse().ok()?;
    }
    Some(Ipv4Addr::from(octets))
}

fn name_problem(text: &str, error: &PatternError) -> DestinationProblem {
    let message = format!("`{text}` is not a name or a pattern of names: {error}");
    let problem = DestinationProblem::new(codes::BAD_NAME, message);
    match error {
        PatternError::ManyInsideLabel => {
            problem.help("use `*` inside a label, `**` for one or more whole labels")
        }
        PatternError::Name(DnsNameError::EmptyLabel) if text.starts_with('.') => {
            let rest = text.trim_start_matches('.');
            problem.help(format!(
                "write `**.{rest}` for all names below it, `{rest}` for the name itself"
            ))
        }
        PatternError::TwoMany => problem.help("write a rule for each number of labels, with `*`"),
        PatternError::GlobNotAscii => problem.help("write the label in its `xn--` form"),
        PatternError::Name(DnsNameError::BadCharacter('?' | '[' | ']' | '{' | '}' | '!')) => {
            problem.help("only `*` and `**` are supported in patterns")
        }
        PatternError::Name(DnsNameError::BadCharacter(',' | ' ')) => {
            problem.help("write one destination per entry")
        }
        PatternError::Name(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_destinations_are() {
        for (text, wanted) in [
            ("host", "host"),
            ("HOST", "host"),
            ("api.stripe.com", "api.stripe.com"),
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("1.example", "1.example"),
            ("1-2.example", "1-2.example"),
            ("4.*.example", "4.*.example"),
            ("*", "*"),
            ("**", "**"),
            ("cafe.fade", "cafe.fade"),
        ] {
            assert_eq!(
                parse(text).map(|t| t.to_string()).as_deref(),
                Ok(wanted),
                "{text}"
            );
        }
    }

    #[test]
    fn what_looks_like_an_address_is_never_a_name() {
        for (text, code, help) in [
            ("10.1.0.0/33", codes::BAD_ADDRESS, "0 to 32"),
            ("10.0.0.300", codes::BAD_ADDRESS, ""),
            ("1.2.3", codes::BAD_ADDRESS, ""),
            ("1.2.3.4.5", codes::BAD_ADDRESS, ""),
            ("10.1/16", codes::BAD_ADDRESS, "`10.1.0.0/16`"),
            ("10.0.0.0/8/9", codes::BAD_ADDRESS, ""),
            ("10.0.0.0/255.0.0.0", codes::BAD_ADDRESS, "`10.0.0.0/8`"),
            ("10.0.0.0/", codes::BAD_ADDRESS, ""),
            ("10.0.0.0/08", codes::BAD_ADDRESS, ""),
            ("10.0.0.0/+8", codes::BAD_ADDRESS, ""),
            ("fe80::zz", codes::BAD_ADDRESS, ""),
            ("fe80::1%eth0", codes::BAD_ADDRESS, "`fe80::1`"),
            ("2001:db8::/129", codes::BAD_ADDRESS, "0 to 128"),
            ("1:2:3", codes::BAD_ADDRESS, ""),
            ("010.1.1.1", codes::BAD_ADDRESS, "`10.1.1.1`"),
            ("10.1.0.5/16", codes::HOST_BITS, "`10.1.0.0/16`"),
            ("2001:db8::1/32", codes::HOST_BITS, "`2001:db8::/32`"),
            ("10.1.*.*", codes::BAD_ADDRESS, "`10.1.0.0/16`"),
            ("10.1.*", codes::BAD_ADDRESS, "`10.1.0.0/16`"),
            ("*.1.2.3", codes::BAD_ADDRESS, ""),
            ("10.0.0.1-10.0.0.9", codes::BAD_ADDRESS, ""),
            ("10.0.0.1-9", codes::BAD_ADDRESS, ""),
            ("10.0.0.1,10.0.0.2", codes::BAD_ADDRESS, ""),
            ("10.0.0.1.", codes::BAD_ADDRESS, ""),
            ("10..0.1", codes::BAD_ADDRESS, ""),
            ("0x7f.0.0.1", codes::BAD_ADDRESS, ""),
            ("0x7f000001", codes::BAD_ADDRESS, ""),
            ("example.com/8", codes::BAD_ADDRESS, "`example.com`"),
            ("/8", codes::BAD_ADDRESS, ""),
            ("[::1]", codes::BAD_DESTINATION, "`::1`"),
            ("[::1]:53", codes::BAD_DESTINATION, "ports: [53]"),
            ("10.0.0.1:443", codes::BAD_DESTINATION, "ports: [443]"),
            ("api.stripe.com:443", codes::BAD_DESTINATION, "ports: [443]"),
            (
                "https://api.stripe.com/v1",
                codes::BAD_DESTINATION,
                "`api.stripe.com`",
            ),
        ] {
            match parse(text) {
                Ok(target) => panic!("{text} became {target:?}"),
                Err(problem) => {
                    assert_eq!(problem.code, code, "{text}: {problem:?}");
                    let said = problem.help.unwrap_or_default();
                    assert!(said.contains(help), "{text}: {said:?} should have {help:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_name_says_how_to_write_it() {
        for (text, help) in [
            (".example.com", "`**.example.com`"),
            ("a**.example.com", "`*` inside a label"),
            ("api-?.example.com", "only `*` and `**`"),
            ("a.com, b.com", "one destination per entry"),
            ("a.com,b.com", "one destination per entry"),
            ("", ""),
            (" a.com", "`a.com`"),
        ] {
            match parse(text) {
                Ok(target) => panic!("{text} became {target:?}"),
                Err(problem) => {
                    assert_eq!(problem.code, codes::BAD_NAME, "{text}: {problem:?}");
                    let said = problem.help.unwrap_or_default();
                    assert!(said.contains(help), "{text}: {said:?} should have {help:?}");
                }
            }
        }
    }
}
