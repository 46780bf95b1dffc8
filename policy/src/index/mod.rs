//! The compiled rules: what a decision looks things up in.
//!
//! Rules with the same destination share one [`Slot`], which answers "which rule covers this
//! port". The way to the slots is a walk over the labels of a name ([`names`]) or a binary search
//! among networks ([`nets`]). So the cost of a decision depends on the destination, not on the
//! number of rules.
//!
//! Rules are numbered in the order in which they are reported ([`crate::rule::Rule::rank`]): of
//! several rules that match, the one with the smallest number is the one to name.

pub(crate) mod names;
pub(crate) mod nets;
mod table;

use crate::ports::Protocol;
use crate::rule::{Effect, Rule};

/// Number of a rule in reporting order.
pub(crate) type RuleId = u32;

/// No rule, no node.
pub(crate) const NONE: u32 = u32::MAX;

/// The rules of one destination. Nearly always that is one rule for all ports, which stands in
/// the number itself; else the number leads to segments that were made disjoint beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// The two upper bits of a slot say what the others are. A policy has fewer than 2^30 rules: its
/// text is bounded.
const KIND: u32 = 0b11 << 30;
/// The number of the one rule, which allows.
const ONE_ALLOW: u32 = 0b01 << 30;
/// The number of the one rule, which denies.
const ONE_DENY: u32 = 0b10 << 30;
/// The number of a list of segments.
const LIST: u32 = 0b00 << 30;

impl Slot {
    /// No rules.
    pub(crate) const EMPTY: Self = Self(NONE);

    /// The one rule for all ports, when that is what this is.
    fn one(self) -> Option<(Effect, RuleId)> {
        match self.0 & KIND {
            ONE_ALLOW => Some((Effect::Allow, self.0 & !KIND)),
            ONE_DENY => Some((Effect::Deny, self.0 & !KIND)),
            _ => None,
        }
    }
}

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

/// The rules of a destination that has several, or one that is not for all ports.
#[derive(Clone, Copy, Debug)]
struct List {
    allow: [Run; 2],
    deny: [Run; 2],
    /// The first of the allow rules, whatever its ports, or [`NONE`].
    first_allow: RuleId,
}

/// What all slots of a policy lead to.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    lists: Vec<List>,
    segments: Vec<Segment>,
}

fn side(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    }
}

impl List {
    fn run(&self, effect: Effect, protocol: Protocol) -> Run {
        let runs = match effect {
            Effect::Allow => &self.allow,
            Effect::Deny => &self.deny,
        };
        runs.get(side(protocol)).copied().unwrap_or_default()
    }
}

impl Slots {
    fn list(&self, slot: Slot) -> Option<&List> {
        self.lists.get(slot.0 as usize)
    }

    fn run(&self, list: &List, effect: Effect, protocol: Protocol) -> &[Segment] {
        let Run { start, len } = list.run(effect, protocol);
        let start = start as usize;
        let segments = self.segments.get(start..start + len as usize);
        segments.unwrap_or_default()
    }

    /// The segments of a slot for one list and protocol, in the order of their ports.
    pub(crate) fn segments(
        &self,
        slot: Slot,
        effect: Effect,
        protocol: Protocol,
    ) -> impl Iterator<Item = Segment> {
        let one = slot.one().filter(|(one, _)| *one == effect);
        let one = one.map(|(_, rule)| Segment {
            first: 1,
            last: u16::MAX,
            rule,
        });
        let run = self.list(slot).map(|list| self.run(list, effect, protocol));
        one.into_iter()
            .chain(run.unwrap_or_default().iter().copied())
    }

    /// The segment that has a port in it, or if there is none, the next one.
    pub(crate) fn find_from(
        &self,
        slot: Slot,
        effect: Effect,
        port: u16,
        protocol: Protocol,
    ) -> Option<Segment> {
        if let Some((one, rule)) = slot.one() {
            let (first, last) = (1, u16::MAX);
            return (one == effect).then_some(Segment { first, last, rule });
        }
        let segments = self.run(self.list(slot)?, effect, protocol);
        let at = segments.partition_point(|s| s.last < port);
        segments.get(at).copied()
    }

    /// The segment that has a port in it. Port 0 is in none.
    pub(crate) fn find(
        &self,
        slot: Slot,
        effect: Effect,
        port: u16,
        protocol: Protocol,
    ) -> Option<Segment> {
        let found = self.find_from(slot, effect, port, protocol);
        found.filter(|s| s.first <= port)
    }

    /// The first of the slot's allow rules, whatever its ports, or [`NONE`].
    pub(crate) fn first_allow(&self, slot: Slot) -> RuleId {
        match slot.one() {
            Some((Effect::Allow, rule)) => rule,
            Some((Effect::Deny, _)) => NONE,
            None => self.list(slot).map_or(NONE, |list| list.first_allow),
        }
    }

    /// Makes the slot of the rules of one destination.
    pub(crate) fn add(&mut self, ids: &[RuleId], rules: &[Rule]) -> Slot {
        let of = |effect| {
            ids.iter()
                .filter_map(move |id| Some((*id, rules.get(*id as usize)?)))
                .filter(move |(_, rule)| rule.effect == effect)
        };
        if let [id] = ids
            && let Some(rule) = rules.get(*id as usize)
            && rule.is_unrestricted()
            && id & KIND == 0
        {
            return Slot(match rule.effect {
                Effect::Allow => ONE_ALLOW | id,
                Effect::Deny => ONE_DENY | id,
            });
        }
        let mut list = List {
            allow: [Run::default(); 2],
            deny: [Run::default(); 2],
            first_allow: of(Effect::Allow).map(|(id, _)| id).min().unwrap_or(NONE),
        };
        for (effect, runs) in [
            (Effect::Allow, &mut list.allow),
            (Effect::Deny, &mut list.deny),
        ] {
            for (protocol, run) in [Protocol::Tcp, Protocol::Udp].into_iter().zip(runs) {
                let start = self.segments.len();
                let fits = |(_, rule): &(RuleId, &Rule)| rule.protocols.contains(protocol);
                flatten(of(effect).filter(fits), &mut self.segments);
                *run = Run {
                    start: number(start),
                    len: number(self.segments.len() - start),
                };
            }
        }
        let id = number(self.lists.len());
        self.lists.push(list);
        Slot(LIST | id)
    }
}

/// A count as a number of ours. A policy text is bounded, so that numbers of things in it fit; if
/// one did not, what it leads to is not found, and what no rule allows is denied.
fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(NONE)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    /// Segments of the allow rules of one name, as text.
    fn segments(rules: &str, protocol: Protocol) -> Vec<(u16, u16, u32)> {
        let text = format!("version: v1\negress:\n  allow:\n{rules}");
        let policy: Policy = crate::load("p", &text).policy.unwrap();
        let ids: Vec<RuleId> = (0..policy.rules().len() as u32).collect();
        let mut slots = Slots::default();
        let slot = slots.add(&ids, policy.rules());
        let found = slots.segments(slot, Effect::Allow, protocol);
        found.map(|s| (s.first, s.last, s.rule)).collect()
    }

    #[test]
    fn overlapping_ranges_become_disjoint_and_the_first_rule_wins() {
        let rules = "    - { to: a.b, ports: ['10-20', '30-40'] }
    - { to: a.b, ports: ['15-35'], protocol: tcp }
    - { to: a.b, ports: [5, 65535] }
";
        assert_eq!(
            segments(rules, Protocol::Tcp),
            [
                (5, 5, 2),
                (10, 20, 0),
                (21, 29, 1),
                (30, 40, 0),
                (65535, 65535, 2)
            ]
        );
        assert_eq!(
            segments(rules, Protocol::Udp),
            [(5, 5, 2), (10, 20, 0), (30, 40, 0), (65535, 65535, 2)]
        );
    }

    #[test]
    fn one_rule_for_everything_needs_no_segments() {
        assert_eq!(segments("    - a.b\n", Protocol::Udp), [(1, 65535, 0)]);
        assert_eq!(
            segments("    - a.b\n    - a.b\n", Protocol::Udp),
            [(1, 65535, 0)]
        );
    }
}
