//! `policyctl explain`.

use std::io::Write;
use std::net::IpAddr;
use std::{fmt, io};

use anyhow::{Context, Result, bail};
use odyn_policy::{
    Condition, Considered, Denial, Destination, Effect, ExplainedDecision, Explanation, Flow,
    Policy, Protocol, RuleRef, Stage, render,
};
use odyn_proto::{DnsName, HOST_ALIAS};

use crate::CommandOutcome;
use crate::cli::ExplainArgs;
use crate::source::PolicySource;

/// The destination of `--to`.
#[derive(Debug, PartialEq, Eq)]
struct ExplainedTo {
    host: ExplainedHost,
    port: u16,
    protocol: Protocol,
}

#[derive(Debug, PartialEq, Eq)]
enum ExplainedHost {
    Parent,
    Address(IpAddr),
    Name(DnsName),
}

pub(crate) fn run(args: &ExplainArgs, out: &mut impl Write) -> Result<CommandOutcome> {
    let to = parse_to(&args.to).with_context(|| format!("--to {}", args.to))?;
    if !args.resolved.is_empty() && !matches!(to.host, ExplainedHost::Name(_)) {
        bail!("--resolved is for names, and --to {} is none", args.to);
    }
    let source = PolicySource::read(&args.file)?;
    let loaded = odyn_policy::load_bytes(&source.name, &source.bytes);
    let Some(policy) = &loaded.policy else {
        let text = source.text();
        for error in loaded.errors() {
            write!(io::stderr(), "{}", render(error, &text))?;
        }
        bail!("{} has errors and allows nothing", source.name);
    };
    let explanation = explain(policy, &to, &args.resolved);
    write_all(&to, &explanation, out)?;
    Ok(if explanation.verdict.is_allow() {
        CommandOutcome::Fine
    } else {
        CommandOutcome::Findings
    })
}

fn explain(policy: &Policy, to: &ExplainedTo, resolved: &[IpAddr]) -> Explanation {
    let destination = match &to.host {
        ExplainedHost::Parent => Destination::Host,
        ExplainedHost::Address(address) => Destination::Address(*address),
        ExplainedHost::Name(name) if resolved.is_empty() => {
            return policy.explain_unresolved(name, to.port, to.protocol);
        }
        ExplainedHost::Name(name) => Destination::Name { name, resolved },
    };
    policy.explain(&Flow {
        destination,
        port: to.port,
        protocol: to.protocol,
    })
}

fn parse_to(text: &str) -> Result<ExplainedTo> {
    let (rest, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, word)) if word.eq_ignore_ascii_case("tcp") => (rest, Protocol::Tcp),
        Some((rest, word)) if word.eq_ignore_ascii_case("udp") => (rest, Protocol::Udp),
        Some(_) if text.contains("://") => bail!("write NAME:PORT, not a URL"),
        Some((_, word)) => bail!("the protocol is tcp or udp, not {word:?}"),
    };
    let Some((host, port)) = rest.rsplit_once(':') else {
        bail!("it has no port: write NAME:PORT, for example {rest}:443");
    };
    let bracketed = host.strip_prefix('[').map(|h| h.strip_suffix(']'));
    if bracketed.is_none() && host.contains(':') {
        bail!("an IPv6 address needs brackets, for example [2001:db8::1]:443");
    }
    let Some(port) = port.parse().ok().filter(|_| !port.starts_with('+')) else {
        bail!("{port:?} is not a port");
    };
    let host = match bracketed {
        Some(None) => bail!("the bracket is not closed"),
        Some(Some(inside)) => ExplainedHost::Address(IpAddr::V6(
            inside
                .parse()
                .with_context(|| format!("{inside:?} is not an IPv6 address"))?,
        )),
        None if host.eq_ignore_ascii_case(HOST_ALIAS) => ExplainedHost::Parent,
        None => match host.parse() {
            Ok(address) => ExplainedHost::Address(address),
            Err(_) => ExplainedHost::Name(
                DnsName::parse(host).with_context(|| format!("{host:?} is not a name"))?,
            ),
        },
    };
    Ok(ExplainedTo {
        host,
        port,
        protocol,
    })
}

impl fmt::Display for ExplainedTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            ExplainedHost::Parent => write!(f, "{HOST_ALIAS}")?,
            ExplainedHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            ExplainedHost::Address(address) => write!(f, "{address}")?,
            ExplainedHost::Name(name) => write!(f, "{name}")?,
        }
        write!(f, ":{}/{}", self.port, self.protocol)
    }
}

fn write_all(to: &ExplainedTo, explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    verdict(to, &explanation.verdict, out)?;
    writeln!(out, "\nconsidered:")?;
    for stage in &explanation.stages {
        let Stage { title, result, .. } = stage;
        writeln!(out, "  {title}: {result}")?;
        for one in &stage.considered {
            considered(one, out)?;
        }
    }
    Ok(())
}

fn verdict(to: &ExplainedTo, verdict: &ExplainedDecision, out: &mut impl Write) -> io::Result<()> {
    match verdict {
        ExplainedDecision::Allow {
            rule,
            report,
            addresses,
            conditions,
        } => {
            writeln!(out, "allow {to}")?;
            if let Some(rule) = rule {
                writeln!(out, "  rule: {}", place(Effect::Allow, rule))?;
            }
            if let Some(denial) = report {
                writeln!(out, "  only because of mode: report; enforce would deny it")?;
                reason(denial, out)?;
            }
            for condition in conditions {
                match condition {
                    Condition::Sni => writeln!(out, "  TLS must carry the name (sni: required)")?,
                }
            }
            for address in addresses {
                writeln!(out, "  dials: {address}")?;
            }
            Ok(())
        }
        ExplainedDecision::Deny(denial) => {
            writeln!(out, "deny {to}")?;
            reason(denial, out)
        }
    }
}

fn reason(denial: &Denial, out: &mut impl Write) -> io::Result<()> {
    use odyn_policy::Reason;
    writeln!(out, "  reason: {}", denial.reason)?;
    match (&denial.rule, denial.reason) {
        (None, _) => Ok(()),
        (Some(rule), Reason::DenyRule) => {
            writeln!(out, "  rule: {}", place(Effect::Deny, rule))
        }
        // The allow rule that would match otherwise.
        (Some(rule), _) => writeln!(out, "  nearest rule: {}", place(Effect::Allow, rule)),
    }
}

fn place(effect: Effect, rule: &RuleRef) -> String {
    format!(
        "{}:{}:{}: {} {}",
        rule.file(),
        rule.line(),
        rule.column(),
        effect.as_str(),
        rule.text()
    )
}

fn considered(one: &Considered, out: &mut impl Write) -> io::Result<()> {
    let limits = match &one.limits {
        Some(limits) => format!(" ({limits})"),
        None => String::new(),
    };
    let place = place(one.effect, &one.rule);
    writeln!(out, "    {place}{limits}: {}", one.outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked() {
        for (text, wanted) in [
            ("api.stripe.com:443/tcp", "api.stripe.com:443/tcp"),
            ("API.Stripe.com.:443", "api.stripe.com:443/tcp"),
            ("host:8080", "host:8080/tcp"),
            ("10.1.2.3:443", "10.1.2.3:443/tcp"),
            ("[2001:db8::1]:53/udp", "[2001:db8::1]:53/udp"),
            ("example.com:53/UDP", "example.com:53/udp"),
        ] {
            assert_eq!(parse_to(text).unwrap().to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn what_can_not() {
        for (text, word) in [
            ("example.com", "no port"),
            ("example.com:", "not a port"),
            ("example.com:70000", "not a port"),
            ("example.com:+80", "not a port"),
            ("example.com:80/sctp", "tcp or udp"),
            ("https://example.com/", "not a URL"),
            ("2001:db8::1:443", "brackets"),
            ("[2001:db8::1:443", "bracket is not closed"),
            ("[10.0.0.1]:443", "not an IPv6 address"),
            ("10.0.0.300:80", "not a name"),
            (":443", "not a name"),
            ("", "no port"),
        ] {
            let error = format!("{:#}", parse_to(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
