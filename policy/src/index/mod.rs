//! The compiled rules: what a decision looks things up in.
//!
//! Rules with the same destination share one [`Slot`]. A slot answers "which rule covers this
//! port" by binary search over segments that were made disjoint beforehand; the way to the slots
//! is a walk over the labels of a name ([`names`]) or a binary search among networks ([`nets`]).
//! So the cost of a decision depends on the destination, not on the number of rules.
//!
//! Rules are numbered in the order in which they are reported ([`crate::rule::Rule::rank`]): of
//! several rules that match, the one with the smallest number is the one to name.

pub(crate) mod names;
pub(crate) mod nets;

use crate::ports::Protocol;
use crate::rule::{Effect, Rule};

/// Number of a rule in reporting order.
pub(crate) type RuleId = u32;

/// No rule, no slot, no node.
pub(crate) const NONE: u32 = u32::MAX;

/// Ports that one rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) rule: RuleId,
}

/// A run of segments in the common pool.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    start: u32,
    len: u32,
}

/// All segments of a policy, one slot's after the other's.
#[derive(Debug, Default)]
pub(crate) struct Segments(Vec<Segment>);

/// The rules of one destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    allow: [Run; 2],
    deny: [Run; 2],
    /// The first of the allow rules, whatever its ports.
    pub(crate) first_allow: RuleId,
}

fn side(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    }
}

impl Slot {
    pub(crate) const EMPTY: Self = Self {
        allow: [Run { start: 0, len: 0 }; 2],
        deny: [Run { start: 0, len: 0 }; 2],
        first_allow: NONE,
    };

    fn run(&self, effect: Effect, protocol: Protocol) -> Run {
        let runs = match effect {
            Effect::Allow => &self.allow,
            Effect::Deny => &self.deny,
        };
        runs.get(side(protocol)).copied().unwrap_or_default()
    }

    pub(crate) fn has(&self, effect: Effect) -> bool {
        match effect {
            Effect::Allow => self.first_allow != NONE,
            Effect::Deny => self.deny.iter().any(|run| run.len > 0),
        }
    }
}

impl Segments {
    /// The segments of a slot for one list and protocol, in the order of their ports.
    pub(crate) fn of(&self, slot: &Slot, effect: Effect, protocol: Protocol) -> &[Segment] {
        let Run { start, len } = slot.run(effect, protocol);
        let start = start as usize;
        self.0.get(start..start + len as usize).unwrap_or_default()
    }

    /// The segment that has a port in it.
    pub(crate) fn find(
        &self,
        slot: &Slot,
        effect: Effect,
        port: u16,
        protocol: Protocol,
    ) -> Option<Segment> {
        let segments = self.of(slot, effect, protocol);
        let at = segments.partition_point(|s| s.last < port);
        segments.get(at).filter(|s| s.first <= port).copied()
    }

    /// Makes the slot of the rules of one destination.
    pub(crate) fn add(&mut self, ids: &[RuleId], rules: &[Rule]) -> Slot {
        let mut slot = Slot::EMPTY;
        let of = |effect| {
            ids.iter()
                .filter_map(move |id| Some((*id, rules.get(*id as usize)?)))
                .filter(move |(_, rule)| rule.effect == effect)
        };
        slot.first_allow = of(Effect::Allow).map(|(id, _)| id).min().unwrap_or(NONE);
        for (effect, runs) in [
            (Effect::Allow, &mut slot.allow),
            (Effect::Deny, &mut slot.deny),
        ] {
            for (protocol, run) in [Protocol::Tcp, Protocol::Udp].into_iter().zip(runs) {
                let start = self.0.len();
                flatten(
                    of(effect).filter(|(_, rule)| rule.protocols.contains(protocol)),
                    &mut self.0,
                );
                // A policy has fewer than 2^32 segments: its text is bounded.
                *run = Run {
                    start: u32::try_from(start).unwrap_or(NONE),
                    len: u32::try_from(self.0.len() - start).unwrap_or(0),
                };
            }
        }
        slot
    }
}

/// Turns overlapping port ranges into disjoint ones, each with the smallest rule number.
fn flatten<'a>(rules: impl Iterator<Item = (RuleId, &'a Rule)>, out: &mut Vec<Segment>) {
    // What begins and ends where: (port, begins, rule).
    let mut edges: Vec<(u32, bool, RuleId)> = Vec::new();
    for (id, rule) in rules {
        for range in rule.ports.ranges() {
            edges.push((u32::from(range.first), true, id));
            edges.push((u32::from(range.last) + 1, false, id));
        }
    }
    edges.sort_unstable();
    let mut open = std::collections::BTreeSet::new();
    let start = out.len();
    let mut from = 0;
    for (at, begins, id) in edges {
        if at > from
            && let Some(rule) = open.first().copied()
            && let (Ok(first), Ok(last)) = (u16::try_from(from), u16::try_from(at - 1))
        {
            match out.get_mut(start..).and_then(<[_]>::last_mut) {
                Some(Segment {
                    last: end,
                    rule: same,
                    ..
                }) if *same == rule && u32::from(*end) + 1 == from => {
                    *end = last;
                }
                _ => out.push(Segment { first, last, rule }),
            }
        }
        from = at;
        if begins {
            open.insert(id);
        } else {
            open.remove(&id);
        }
    }
}
