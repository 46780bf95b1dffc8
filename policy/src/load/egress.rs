//! `egress`: the rules.

use std::sync::Arc;

use super::fields::Fields;
use super::{destination, fields, keys};
use crate::codes;
use crate::condition::Condition;
use crate::diagnostic::DiagnosticSink;
use crate::ports::{PortSet, Protocol, Protocols};
use crate::rule::{Effect, Rule, RuleTarget};
use crate::settings::{Mode, PolicySettings};
use crate::yaml::{ScalarKind, YamlNode, YamlValue, nearest, short};

pub(super) fn read(
    node: &YamlNode,
    settings: &mut PolicySettings,
    rules: &mut Vec<Rule>,
    sink: &mut DiagnosticSink,
) {
    if node.is_null() {
        return;
    }
    let Some(fields) = Fields::open(node, "`egress`", "`egress: { allow: [example.com] }`", sink)
    else {
        return;
    };
    fields.check_keys(&keys::EGRESS, sink);
    match fields.string("mode", "enforce", sink).as_deref() {
        None => {}
        Some("enforce") => settings.mode = Mode::Enforce,
        Some("report") => settings.mode = Mode::Report,
        Some(other) => {
            let message = format!("`mode` is enforce or report, not {:?}", short(other));
            sink.error(codes::BAD_VALUE, fields.span("mode"), message)
                .help_opt(
                    nearest(other, ["enforce", "report"].into_iter())
                        .map(|near| format!("did you mean `{near}`?")),
                );
        }
    }
    for (key, effect) in [("allow", Effect::Allow), ("deny", Effect::Deny)] {
        let Some(node) = fields.get(key) else {
            continue;
        };
        let example = format!("`{key}: [api.example.com]`");
        for item in fields::list(node, &format!("`{key}`"), &example, sink) {
            rules.extend(rule(item, effect, sink));
        }
    }
}

fn rule(node: &YamlNode, effect: Effect, sink: &mut DiagnosticSink) -> Option<Rule> {
    if let YamlValue::Mapping(_) = &node.value {
        return long_form(node, effect, sink);
    }
    let target = target(node, sink)?;
    Some(Rule {
        effect,
        target,
        ports: PortSet::all(),
        protocols: Protocols::Any,
        conditions: Box::default(),
        span: node.span,
        text: text_of(node),
    })
}

/// The destination as it is written.
fn text_of(node: &YamlNode) -> Arc<str> {
    match &node.value {
        YamlValue::Scalar(scalar) => scalar.text.as_str().into(),
        _ => "".into(),
    }
}

fn target(node: &YamlNode, sink: &mut DiagnosticSink) -> Option<RuleTarget> {
    let scalar = match &node.value {
        YamlValue::Scalar(scalar) => scalar,
        _ => {
            fields::wrong_type(node, "a rule", "a destination", "`- api.example.com`", sink);
            return None;
        }
    };
    // YAML reads an unquoted `10.1` as a number. It gets the error message of a destination.
    match scalar.kind() {
        ScalarKind::String | ScalarKind::Float | ScalarKind::Integer => {}
        ScalarKind::Null | ScalarKind::Bool(_) => {
            fields::wrong_type(node, "a rule", "a destination", "`- api.example.com`", sink);
            return None;
        }
    }
    match destination::parse(&scalar.text) {
        Ok(target) => Some(target),
        Err(problem) => {
            sink.error(problem.code, node.span, problem.message)
                .help_opt(problem.help);
            None
        }
    }
}

fn long_form(node: &YamlNode, effect: Effect, sink: &mut DiagnosticSink) -> Option<Rule> {
    const EXAMPLE: &str = "`- { to: db.internal, ports: [5432], protocol: tcp }`";
    let fields = Fields::open(node, "a rule", EXAMPLE, sink)?;
    fields.check_keys(&keys::RULE, sink);
    let Some(to) = fields.get("to") else {
        sink.error(codes::MISSING_KEY, node.span, "a rule needs `to`")
            .help(format!("for example {EXAMPLE}"));
        return None;
    };
    let target = target(to, sink);
    let ports = match fields.get("ports") {
        Some(node) => ports(node, sink),
        None => Some(PortSet::all()),
    };
    let protocols = protocols(&fields, sink);
    let conditions: Box<[Condition]> = sni(&fields, sink).into_iter().collect();
    let target = target?;
    let mut protocols = protocols?;
    if !conditions.is_empty() {
        protocols = check_sni(&fields, effect, &target, protocols, sink);
    }
    Some(Rule {
        effect,
        target,
        ports: ports?,
        protocols,
        conditions,
        span: to.span,
        text: text_of(to),
    })
}

fn protocols(fields: &Fields<'_>, sink: &mut DiagnosticSink) -> Option<Protocols> {
    if fields.get("protocol").is_none() {
        return Some(Protocols::Any);
    }
    let text = fields.string("protocol", "tcp", sink)?;
    match text.as_str() {
        "tcp" => Some(Protocols::Only(Protocol::Tcp)),
        "udp" => Some(Protocols::Only(Protocol::Udp)),
        "any" => Some(Protocols::Any),
        other => {
            let message = format!("`protocol` is tcp, udp or any, not {:?}", short(other));
            sink.error(codes::BAD_VALUE, fields.span("protocol"), message)
                .help_opt(
                    nearest(other, ["tcp", "udp", "any"].into_iter())
                        .map(|near| format!("did you mean `{near}`?")),
                );
            None
        }
    }
}

fn sni(fields: &Fields<'_>, sink: &mut DiagnosticSink) -> Option<Condition> {
    match fields.string("sni", "required", sink).as_deref() {
        None => None,
        Some("required") => Some(Condition::Sni),
        Some(other) => {
            let message = format!("`sni` can only be required, not {:?}", short(other));
            sink.error(codes::BAD_VALUE, fields.span("sni"), message)
                .help("leave the key out if SNI is not required");
            None
        }
    }
}

/// Checks that the rule is for TCP flows to names: SNI can be checked on no others.
fn check_sni(
    fields: &Fields<'_>,
    effect: Effect,
    target: &RuleTarget,
    protocols: Protocols,
    sink: &mut DiagnosticSink,
) -> Protocols {
    let span = fields.span("sni");
    if effect == Effect::Deny {
        sink.error(codes::BAD_SNI, span, "a deny rule can't require SNI")
            .help("a deny rule denies all flows, with or without TLS: remove `sni`");
    } else if !matches!(target, RuleTarget::Name(_)) {
        sink.error(codes::BAD_SNI, span, "`sni` needs a rule for names")
            .help("a flow to an address or to host has no name to compare with: remove `sni`");
    } else if fields.get("protocol").is_some() && protocols != Protocols::Only(Protocol::Tcp) {
        sink.error(codes::BAD_SNI, span, "`sni` needs `protocol: tcp`")
            .help("write a second rule for UDP without `sni`");
    }
    Protocols::Only(Protocol::Tcp)
}

fn ports(node: &YamlNode, sink: &mut DiagnosticSink) -> Option<PortSet> {
    const EXAMPLE: &str = "`ports: [443, \"8000-8010\"]`";
    let YamlValue::Sequence(items) = &node.value else {
        fields::wrong_type(node, "`ports`", "a list of ports and ranges", EXAMPLE, sink);
        return None;
    };
    if items.is_empty() {
        sink.error(
            codes::BAD_PORT,
            node.span,
            "`ports` is empty: the rule would match nothing",
        )
        .help("leave the key out for all ports");
        return None;
    }
    let mut ranges = Vec::with_capacity(items.len());
    let mut fine = true;
    for item in items {
        match port_range(item, sink) {
            Some(range) => {
                if range.0 == 0 {
                    sink.warning(codes::PORT_ZERO, item.span, "no protocol uses port 0")
                        .help("flows to port 0 are always denied: start at 1");
                }
                ranges.push(range);
            }
            None => fine = false,
        }
    }
    fine.then(|| PortSet::new(ranges))
}

fn port_range(node: &YamlNode, sink: &mut DiagnosticSink) -> Option<(u16, u16)> {
    let YamlValue::Scalar(scalar) = &node.value else {
        fields::wrong_type(
            node,
            "a port",
            "a number or a range",
            "`443` or `\"8000-8010\"`",
            sink,
        );
        return None;
    };
    let number = |text: &str, sink: &mut DiagnosticSink| -> Option<u16> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let port = text.parse().ok().filter(|_| plain);
        if port.is_none() {
            let message = format!("{:?} is not a port", short(text));
            sink.error(codes::BAD_PORT, node.span, message)
                .help("ports are numbers from 1 to 65535, ranges such as \"8000-8010\"");
        }
        port
    };
    let Some((first, last)) = scalar.text.split_once('-') else {
        let port = number(&scalar.text, sink)?;
        return Some((port, port));
    };
    let (first, last) = (number(first.trim(), sink)?, number(last.trim(), sink)?);
    if first > last {
        let message = format!("the range {first}-{last} is reversed: the rule would match nothing");
        sink.error(codes::BAD_PORT, node.span, message)
            .help(format!("write \"{last}-{first}\""));
        return None;
    }
    Some((first, last))
}
