//! The compiled rules.
//!
//! Rules with the same destination share one [`RuleSlot`], which answers "which rule covers this
//! port". A decision finds slots by a walk over the labels of a name ([`names`]) or by a binary
//! search among networks ([`nets`]). So the cost of a decision depends on the destination, not on
//! the number of rules.
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

/// The number of no rule and no node.
pub(crate) const NONE: u32 = u32::MAX;

/// The rules of one destination.
///
/// Nearly always there is one rule for all ports, and the number holds it. Otherwise the number is
/// that of a list of disjoint segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleSlot(u32);

/// The two upper bits of a slot, which give the meaning of the others.
///
/// A policy has fewer than 2^30 rules, because its text is bounded.
const KIND: u32 = 0b11 << 30;
/// The other bits are the number of the only rule, an allow rule.
const ONE_ALLOW: u32 = 0b01 << 30;
/// The other bits are the number of the only rule, a deny rule.
const ONE_DENY: u32 = 0b10 << 30;
/// The other bits are the number of a list of segments.
const LIST: u32 = 0b00 << 30;

impl RuleSlot {
    /// No rules.
    pub(crate) const EMPTY: Self = Self(NONE);

    /// The only rule, if the slot has one rule for all ports.
    fn one(self) -> Option<(Effect, RuleId)> {
        match self.0 & KIND {
            ONE_ALLOW => Some((Effect::Allow, self.0 & !KIND)),
            ONE_DENY => Some((Effect::Deny, self.0 & !KIND)),
            _ => None,
        }
    }
}

/// A range of ports that one rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) rule: RuleId,
}

/// A run of segments in the common pool.
#[derive(Clone, Copy, Debug, Default)]
struct SegmentRun {
    start: u32,
    len: u32,
}

/// The rules of a destination with several rules, or with one that is not for all ports.
#[derive(Clone, Copy, Debug)]
struct RuleList {
    allow: [SegmentRun; 2],
    deny: [SegmentRun; 2],
    /// The first of the allow rules, whatever its ports, or [`NONE`].
    first_allow: RuleId,
}

/// The lists and segments of all slots of a policy.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    lists: Vec<RuleList>,
    segments: Vec<Segment>,
}

fn side(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    }
}

impl RuleList {
    fn run(&self, effect: Effect, protocol: Protocol) -> SegmentRun {
        let runs = match effect {
            Effect::Allow => &self.allow,
            Effect::Deny => &self.deny,
        };
        runs.get(side(protocol)).copied().unwrap_or_default()
    }
}

impl Slots {
    fn list(&self, slot: RuleSlot) -> Option<&RuleList> {
        self.lists.get(slot.0 as usize)
    }

    fn run(&self, list: &RuleList, effect: Effect, protocol: Protocol) -> &[Segment] {
        let SegmentRun { start, len } = list.run(effect, protocol);
        let start = start as usize;
        let segments = self.segments.get(start..start + len as usize);
        debug_assert!(segments.is_some(), "a run lies inside the pool of segments");
        segments.unwrap_or_default()
    }

    /// The segments of a slot for one list and protocol, in the order of their ports.
    pub(crate) fn segments(
        &self,
        slot: RuleSlot,
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

    /// The segment that contains a port, or else the next one.
    pub(crate) fn find_from(
        &self,
        slot: RuleSlot,
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

    /// The segment that contains a port. None contains port 0.
    pub(crate) fn find(
        &self,
        slot: RuleSlot,
        effect: Effect,
        port: u16,
        protocol: Protocol,
    ) -> Option<Segment> {
        let found = self.find_from(slot, effect, port, protocol);
        found.filter(|s| s.first <= port)
    }

    /// The first of the slot's allow rules, whatever its ports, or [`NONE`].
    pub(crate) fn first_allow(&self, slot: RuleSlot) -> RuleId {
        match slot.one() {
            Some((Effect::Allow, rule)) => rule,
            Some((Effect::Deny, _)) => NONE,
            None => self.list(slot).map_or(NONE, |list| list.first_allow),
        }
    }

    /// Makes the slot of the rules of one destination.
    pub(crate) fn add(&mut self, ids: &[RuleId], rules: &[Rule]) -> RuleSlot {
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
            return RuleSlot(match rule.effect {
                Effect::Allow => ONE_ALLOW | id,
                Effect::Deny => ONE_DENY | id,
            });
        }
        let mut list = RuleList {
            allow: [SegmentRun::default(); 2],
            deny: [SegmentRun::default(); 2],
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
                *run = SegmentRun {
                    start: number(start),
                    len: number(self.segments.len() - start),
                };
            }
        }
        let id = number(self.lists.len());
        self.lists.push(list);
        RuleSlot(LIST | id)
    }
}

/// A count as a 32-bit number.
///
/// The bounded text of a policy cannot hold more. If it did, the thing would not be found, and what
/// no rule allows is denied.
fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(NONE)
}

/// Turns overlapping port ranges into disjoint ones, each with the smallest rule number.
fn flatten<'a>(rules: impl Iterator<Item = (RuleId, &'a Rule)>, out: &mut Vec<Segment>) {
    // Each begin and end of a range: (port, begins, rule).
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
        let ids: Vec<RuleId> = (0..policy.rule_list().len() as u32).collect();
        let mut slots = Slots::default();
        let slot = slots.add(&ids, policy.rule_list());
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
