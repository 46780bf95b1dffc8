//! Rules without effect because of another rule: duplicates, shadowed rules, and allow rules that
//! deny rules close.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::diagnostic::DiagnosticSink;
use crate::pattern::{Label, Pattern};
use crate::rule::{Effect, Rule, RuleTarget};
use crate::{codes, special};

/// Most rules of one destination that a rule is compared with.
const MAX_COMPARED: usize = 256;

pub(super) fn run(rules: &[Rule], sink: &mut DiagnosticSink) {
    let index = Index::build(rules);
    for (at, rule) in rules.iter().enumerate() {
        examine(at, rule, &index, sink);
    }
}

/// At most one finding for each rule: the most useful one.
fn examine(at: usize, rule: &Rule, index: &Index<'_>, sink: &mut DiagnosticSink) {
    let span = rule.span;
    let wider = index.wider(rule);
    if rule.ports.ranges().is_empty() {
        let message = format!(
            "`{}` has no port left, so the rule does nothing",
            rule.target
        );
        let code = match rule.effect {
            Effect::Allow => codes::UNREACHABLE_RULE,
            Effect::Deny => codes::USELESS_DENY,
        };
        sink.warning(code, span, message)
            .help("remove the rule or give it a port");
        return;
    }
    let limits_covered =
        |other: &Rule| other.ports.covers(&rule.ports) && other.protocols.covers(rule.protocols);
    if rule.effect == Effect::Allow {
        let closing = wider
            .iter()
            .find(|(_, other)| other.effect == Effect::Deny && limits_covered(other));
        if let Some((_, deny)) = closing {
            let message = format!(
                "`{}` can never be allowed: a deny rule covers it",
                rule.target
            );
            sink.warning(codes::UNREACHABLE_RULE, span, message)
                .help("deny beats allow, in whatever order they stand: remove one of the two")
                .related(deny.span, format!("`{}` is denied here", deny.target));
            return;
        }
    }
    let same_list = wider
        .iter()
        .filter(|(other_at, other)| *other_at != at && other.effect == rule.effect);
    for (other_at, other) in same_list {
        let same_target = other.target == rule.target;
        let same_limits = other.ports == rule.ports && other.protocols == rule.protocols;
        if same_target && same_limits {
            // Reported once, for the later rule.
            if *other_at > at {
                continue;
            }
            let message = format!("`{}` stands twice in the list", rule.target);
            let help = if other.conditions == rule.conditions {
                "remove one of the two"
            } else {
                "the first one decides whether SNI is required: remove one of the two"
            };
            sink.warning(codes::DUPLICATE_RULE, span, message)
                .help(help)
                .related(other.span, "first here");
            return;
        }
        // A narrower rule still decides whether SNI is required.
        let decides_sni = other.conditions != rule.conditions && !(same_target && other_at < &at);
        if limits_covered(other) && !decides_sni {
            let message = format!(
                "`{}` does nothing: the rule for `{}` covers it",
                rule.target, other.target
            );
            sink.warning(codes::SHADOWED_RULE, span, message)
                .help("remove it, or narrow the wider rule")
                .related(other.span, "the wider rule");
            return;
        }
    }
}

/// Finds the rules whose destination includes that of a given rule.
struct Index<'a> {
    by_target: HashMap<&'a RuleTarget, Vec<(usize, &'a Rule)>>,
    /// Patterns that are neither exact nor `*` or `**` before literal labels, by those labels.
    odd: HashMap<String, Vec<(usize, &'a Rule)>>,
}

impl<'a> Index<'a> {
    fn build(rules: &'a [Rule]) -> Self {
        let mut by_target: HashMap<_, Vec<_>> = HashMap::new();
        let mut odd: HashMap<_, Vec<_>> = HashMap::new();
        for (at, rule) in rules.iter().enumerate() {
            by_target.entry(&rule.target).or_default().push((at, rule));
            if let RuleTarget::Name(pattern @ Pattern::Wild(labels)) = &rule.target
                && (pattern.literal_suffix() + 1 < labels.len()
                    || matches!(labels.first(), Some(Label::Glob(_))))
            {
                odd.entry(pattern.literal_end())
                    .or_default()
                    .push((at, rule));
            }
        }
        Self { by_target, odd }
    }

    /// Rules that cover the destination of `rule`, itself among them, in no particular order.
    fn wider(&self, rule: &Rule) -> Vec<(usize, &'a Rule)> {
        let mut found = self.same(&rule.target);
        match &rule.target {
            RuleTarget::Host => {}
            RuleTarget::Name(pattern) => {
                for wider in generalisations(pattern) {
                    found.extend(self.same(&RuleTarget::Name(wider)));
                }
                self.add_odd(pattern, &mut found);
            }
            RuleTarget::Net(net) => {
                let mut wider = net.supernet();
                while let Some(next) = wider {
                    // A deny rule also closes special addresses.
                    let opens = opens_as_much(next, *net);
                    let same = self.same(&RuleTarget::Net(next)).into_iter();
                    found.extend(same.filter(|(_, r)| opens || r.effect == Effect::Deny));
                    wider = next.supernet();
                }
            }
        }
        found
    }

    fn same(&self, target: &RuleTarget) -> Vec<(usize, &'a Rule)> {
        let same = self.by_target.get(target).map(Vec::as_slice);
        same.unwrap_or_default()
            .iter()
            .take(MAX_COMPARED)
            .copied()
            .collect()
    }

    fn add_odd(&self, pattern: &Pattern, found: &mut Vec<(usize, &'a Rule)>) {
        if self.odd.is_empty() {
            return;
        }
        let literal = pattern.literal_end();
        let mut rest = Some(literal.as_str());
        while let Some(suffix) = rest {
            for (at, rule) in self
                .odd
                .get(suffix)
                .into_iter()
                .flatten()
                .take(MAX_COMPARED)
            {
                if let RuleTarget::Name(other) = &rule.target
                    && other != pattern
                    && other.covers(pattern)
                {
                    found.push((*at, rule));
                }
            }
            rest = match suffix.split_once('.') {
                Some((_, shorter)) => Some(shorter),
                None if suffix.is_empty() => None,
                None => Some(""),
            };
        }
    }
}

/// Whether the wider network opens every address of the narrower one, special ones included.
fn opens_as_much(wider: IpNet, narrower: IpNet) -> bool {
    match special::block_of(narrower.network()) {
        // The narrower network lies inside a special block, the wider one does not.
        Some(block) if narrower.prefix_len() >= block.prefix_len => {
            wider.prefix_len() >= block.prefix_len
        }
        _ => true,
    }
}

/// `*.suffix` and `**.suffix` patterns that cover a pattern, other than itself.
fn generalisations(pattern: &Pattern) -> Vec<Pattern> {
    let text = pattern.to_string();
    let mut found = Vec::new();
    let mut rest = text.as_str();
    let mut first = true;
    loop {
        let (label, shorter) = match rest.split_once('.') {
            Some((label, shorter)) => (label, Some(shorter)),
            None => (rest, None),
        };
        // Only at the first step is one label to the left of `shorter`.
        let stars: &[&str] = if first && label != "**" {
            &["*", "**"]
        } else {
            &["**"]
        };
        for star in stars {
            let wider = match shorter {
                Some(shorter) => format!("{star}.{shorter}"),
                None => (*star).to_owned(),
            };
            if wider != text
                && let Ok(wider) = Pattern::parse(&wider)
                && wider.covers(pattern)
            {
                found.push(wider);
            }
        }
        first = false;
        match shorter {
            Some(shorter) => rest = shorter,
            None => return found,
        }
    }
}
