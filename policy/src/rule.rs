//! Rules of the policy.

use std::cmp::Reverse;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ipnet::IpNet;
use odyn_proto::HOST_ALIAS;

use crate::condition::Condition;
use crate::diagnostic::Span;
use crate::pattern::Pattern;
use crate::ports::{PortSet, Protocol, Protocols};

/// A rule of the policy file, as audit records show it.
///
/// Cloning is cheap. Two references are equal if they are the same rule at the same place.
#[derive(Clone)]
pub struct RuleRef {
    // All rules of a policy share one counter, which stays in the cache. A counter for each rule
    // would be a cache miss for each decision.
    table: Arc<RuleTable>,
    id: u32,
}

/// The rules of a policy in the order in which they are reported.
#[derive(Debug)]
pub(crate) struct RuleTable {
    file: Arc<str>,
    rules: Box<[Rule]>,
}

impl RuleTable {
    pub(crate) fn new(file: Arc<str>, mut rules: Vec<Rule>) -> Self {
        rules.sort_by_cached_key(Rule::rank);
        Self {
            file,
            rules: rules.into_boxed_slice(),
        }
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule with a number; `None` if no rule has it.
    pub(crate) fn reference(self: &Arc<Self>, id: u32) -> Option<RuleRef> {
        let table = ((id as usize) < self.rules.len()).then(|| Arc::clone(self))?;
        Some(RuleRef { table, id })
    }
}

impl RuleRef {
    fn rule(&self) -> Option<&Rule> {
        self.table.rules.get(self.id as usize)
    }

    /// The destination of the rule as it is written in the file.
    #[must_use]
    pub fn text(&self) -> &str {
        self.rule().map_or("", |rule| &rule.text)
    }

    /// [`RuleRef::text`], to keep without a copy.
    #[must_use]
    pub fn shared_text(&self) -> Arc<str> {
        self.rule()
            .map_or_else(Arc::default, |rule| Arc::clone(&rule.text))
    }

    /// Line of the file, counted from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.span().line
    }

    /// Column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> u32 {
        self.span().column
    }

    /// The place of the rule's destination in the file.
    #[must_use]
    pub fn span(&self) -> Span {
        self.rule().map_or(Span::START, |rule| rule.span)
    }

    /// The list that the rule stands in.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.rule().map_or(Effect::Deny, |rule| rule.effect)
    }

    /// The destination in canonical form: `host`, a pattern in lower case, an address or a network.
    #[must_use]
    pub fn destination(&self) -> String {
        self.rule()
            .map_or_else(String::new, |rule| rule.target.to_string())
    }

    /// The first and the last port of each range, in ascending order.
    pub fn ports(&self) -> impl Iterator<Item = (u16, u16)> {
        let ranges = self.rule().map_or(&[][..], |rule| rule.ports.ranges());
        ranges.iter().map(|range| (range.first, range.last))
    }

    /// The only protocol of the rule; `None` for a rule that is for both.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match self.rule()?.protocols {
            Protocols::Any => None,
            Protocols::Only(only) => Some(only),
        }
    }

    /// The conditions on flows that the rule allows.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        self.rule().map_or(&[], |rule| &rule.conditions)
    }

    /// The name under which the policy file was loaded.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.table.file
    }

    /// The position in the order in which rules are reported.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    fn key(&self) -> (&str, Span, &str) {
        (self.file(), self.span(), self.text())
    }
}

impl PartialEq for RuleRef {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for RuleRef {}

impl Hash for RuleRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.text(), self.file(), self.line())
    }
}

impl fmt::Debug for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleRef({self})")
    }
}

/// The list that a rule stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// `egress.allow`.
    Allow,
    /// `egress.deny`.
    Deny,
}

impl Effect {
    /// `allow` or `deny`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// The destination of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RuleTarget {
    /// The host's loopback.
    Host,
    Name(Pattern),
    /// A network, truncated to its prefix, never IPv4-mapped.
    Net(IpNet),
}

impl fmt::Display for RuleTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str(HOST_ALIAS),
            Self::Name(pattern) => pattern.fmt(f),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
        }
    }
}

/// One entry of `egress.allow` or `egress.deny`.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) effect: Effect,
    pub(crate) target: RuleTarget,
    pub(crate) ports: PortSet,
    pub(crate) protocols: Protocols,
    /// The conditions on flows that the rule allows; empty for a deny rule.
    pub(crate) conditions: Box<[Condition]>,
    /// The place of the destination in the file.
    pub(crate) span: Span,
    pub(crate) text: Arc<str>,
}

impl Rule {
    pub(crate) fn matches_port(&self, port: u16, protocol: Protocol) -> bool {
        self.protocols.contains(protocol) && self.ports.contains(port)
    }

    /// Every port of both protocols.
    pub(crate) fn is_unrestricted(&self) -> bool {
        self.protocols == Protocols::Any && self.ports.is_all()
    }

    /// The order in which rules are reported when several match one flow: the most specific
    /// first, and of equals the one that stands first in the file.
    ///
    /// Exact names come before patterns, patterns with more literal characters before those with
    /// fewer, and of these the ones without `**` before those with it; networks with the longer
    /// prefix come first.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        let specific = match &self.target {
            RuleTarget::Host => (0, Reverse(0), false),
            RuleTarget::Name(Pattern::Exact(_)) => (0, Reverse(0), false),
            RuleTarget::Name(pattern @ Pattern::Wild(_)) => {
                (1, Reverse(pattern.literal_chars()), pattern.has_many())
            }
            RuleTarget::Net(net) => (0, Reverse(usize::from(net.prefix_len())), false),
        };
        (specific, self.span)
    }
}
