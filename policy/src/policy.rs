//! The compiled policy and its decisions.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::decision::{
    Addresses, Decision, Denial, Destination, Flow, NameDecision, NamePermit, Permit, Reason,
};
use crate::index::names::NameIndex;
use crate::index::nets::{self, NetIndex};
use crate::index::{NONE, RuleId, Segments, Slot};
use crate::name::Name;
use crate::pattern::Pattern;
use crate::ports::Protocol;
use crate::rule::{Effect, Rule, RuleRef, Target};
use crate::settings::{Mode, Settings};
use crate::special::{self, Special};

/// A compiled policy. Made by [`crate::load`]; share it in an `Arc`.
#[derive(Debug)]
pub struct Policy {
    settings: Settings,
    /// In reporting order, so that a rule's number is its rank.
    rules: Box<[Rule]>,
    segments: Segments,
    host: Slot,
    names: NameIndex,
    v4: NetIndex,
    v6: NetIndex,
}

/// What rules say about a destination and port, before addresses are looked at.
#[derive(Clone, Copy)]
struct Match {
    deny: RuleId,
    allow: RuleId,
    /// An allow rule for the port, but the other protocol.
    other_protocol: RuleId,
    /// An allow rule for whatever port.
    any: RuleId,
}

impl Match {
    const NONE: Self = Self {
        deny: NONE,
        allow: NONE,
        other_protocol: NONE,
        any: NONE,
    };

    fn add(&mut self, segments: &Segments, slot: &Slot, port: u16, protocol: Protocol) {
        let find = |effect, protocol| {
            segments
                .find(slot, effect, port, protocol)
                .map_or(NONE, |s| s.rule)
        };
        self.deny = self.deny.min(find(Effect::Deny, protocol));
        self.add_allow(segments, slot, port, protocol);
    }

    fn add_allow(&mut self, segments: &Segments, slot: &Slot, port: u16, protocol: Protocol) {
        if slot.first_allow == NONE {
            return;
        }
        let find = |protocol| {
            segments
                .find(slot, Effect::Allow, port, protocol)
                .map_or(NONE, |s| s.rule)
        };
        self.allow = self.allow.min(find(protocol));
        self.other_protocol = self.other_protocol.min(find(protocol.other()));
        self.any = self.any.min(slot.first_allow);
    }
}

/// What stands in the way of an address.
struct Refusal {
    denial: Denial,
    /// Not even `mode: report` lets it pass.
    guarded: bool,
}

impl Policy {
    pub(crate) fn compile(settings: Settings, mut rules: Vec<Rule>) -> Self {
        rules.sort_by_cached_key(Rule::rank);
        let mut host = Vec::new();
        let mut names: HashMap<&Pattern, Vec<RuleId>> = HashMap::new();
        let mut networks: HashMap<ipnet::IpNet, Vec<RuleId>> = HashMap::new();
        for (id, rule) in (0..).zip(&rules) {
            match &rule.target {
                Target::Host => host.push(id),
                Target::Name(pattern) => names.entry(pattern).or_default().push(id),
                Target::Net(net) => networks.entry(*net).or_default().push(id),
            }
        }
        let mut segments = Segments::default();
        let host = segments.add(&host, &rules);
        let mut name_index = NameIndex::default();
        for (pattern, ids) in names {
            name_index.insert(pattern, segments.add(&ids, &rules));
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, ids) in networks {
            let family = if net.addr().is_ipv4() {
                &mut v4
            } else {
                &mut v6
            };
            family.push((net, segments.add(&ids, &rules)));
        }
        let [v4, v6] = [v4, v6].map(|family| {
            let mut index = NetIndex::build(family);
            mark_denied_wholly(&mut index, &segments);
            index
        });
        Self {
            settings,
            rules: rules.into_boxed_slice(),
            segments,
            host,
            names: name_index,
            v4,
            v6,
        }
    }

    /// Everything in the file that is not an egress rule.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The rules in the order in which they are reported.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// How many allow rules and how many deny rules the policy has.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let allow = self.rules.iter().filter(|r| r.effect == Effect::Allow);
        let allow = allow.count();
        (allow, self.rules.len() - allow)
    }

    /// Decides one flow. Allocates nothing; the cost hardly depends on the number of rules.
    ///
    /// - Deny beats allow; what no rule allows is denied.
    /// - Port 0 is never allowed.
    /// - An address needs an address rule; name rules never match it. A name needs a name rule,
    ///   and its addresses must not be denied by an address rule, nor be special unless an allow
    ///   rule for this port that lies inside the special block covers them. Refused addresses are
    ///   left out; if none is left, the flow is denied for the reason of the first.
    /// - The name `host` is [`Destination::Host`], and only a `host` rule speaks about it.
    ///   `localhost` and what is below it is always denied (RFC 6761: it never leaves a machine).
    /// - The rule that is named is the most specific one that matches, and of equals the first in
    ///   the file: exact names, then patterns by literal characters; longer prefixes first.
    ///   Whether SNI is required is what that rule says.
    /// - `mode: report` turns denials into permits with [`Permit::report`], except for port 0,
    ///   special and synthetic addresses, `localhost`, and names without an address.
    pub fn decide(&self, flow: &Flow<'_>) -> Decision {
        let &Flow {
            destination,
            port,
            protocol,
        } = flow;
        if port == 0 {
            return Decision::Deny(Denial::new(Reason::Port));
        }
        match destination {
            Destination::Host => self.decide_host(port, protocol),
            Destination::Name { name, .. } if name.is_host_alias() => {
                self.decide_host(port, protocol)
            }
            Destination::Name { name, resolved } => {
                self.decide_named(name, resolved, port, protocol)
            }
            Destination::Address(address) => self.decide_address(address, port, protocol),
        }
    }

    fn decide_host(&self, port: u16, protocol: Protocol) -> Decision {
        let mut found = Match::NONE;
        found.add(&self.segments, &self.host, port, protocol);
        self.judge(&found, Permit::host(port, protocol))
    }

    fn decide_named(
        &self,
        name: &Name,
        resolved: &[IpAddr],
        port: u16,
        protocol: Protocol,
    ) -> Decision {
        if name.is_localhost() {
            return Decision::Deny(Denial::new(Reason::SpecialName));
        }
        let mut found = Match::NONE;
        self.names.visit(name.as_str(), |slot| {
            found.add(&self.segments, slot, port, protocol);
        });
        let by_name = self.objection(&found);
        if let Some(denial) = &by_name
            && self.settings.mode == Mode::Enforce
        {
            return Decision::Deny(denial.clone());
        }

        let mut addresses = Addresses::new();
        // What only `mode: report` lets pass: used when nothing better is there.
        let mut reported = Addresses::new();
        let mut first_refusal = None;
        for address in resolved.iter().copied().map(special::canonical) {
            if addresses.is_full() {
                break;
            }
            match self.refusal(address, port, protocol) {
                None => addresses.push(address),
                Some(refusal) => {
                    if !refusal.guarded && self.settings.mode == Mode::Report {
                        reported.push(address);
                    }
                    first_refusal.get_or_insert(refusal.denial);
                }
            }
        }
        let (addresses, report) = if !addresses.is_empty() {
            (addresses, by_name)
        } else if !reported.is_empty() {
            (reported, by_name.or(first_refusal))
        } else {
            let denial = first_refusal.unwrap_or(Denial::new(Reason::NoAddress));
            return Decision::Deny(denial);
        };
        let permit = Permit::addresses(addresses, port, protocol).with_report(report);
        Decision::Allow(self.sign(permit, &found))
    }

    fn decide_address(&self, address: IpAddr, port: u16, protocol: Protocol) -> Decision {
        let address = special::canonical(address);
        if special::block_of(address).is_some_and(|b| b.kind == Special::Synthetic) {
            return Decision::Deny(Denial::new(Reason::UnknownSynthetic));
        }
        let mut found = Match::NONE;
        for entry in self.nets_around(address) {
            found.add_allow(&self.segments, &entry.slot, port, protocol);
        }
        let refusal = self.refusal(address, port, protocol);
        let denial = match refusal {
            Some(Refusal {
                denial,
                guarded: true,
            }) => return Decision::Deny(denial),
            Some(refusal) => Some(refusal.denial),
            None => self.objection(&found),
        };
        match denial {
            Some(denial) if self.settings.mode == Mode::Enforce => Decision::Deny(denial),
            report => {
                let permit = Permit::addresses(Addresses::one(address), port, protocol);
                Decision::Allow(self.sign(permit.with_report(report), &found))
            }
        }
    }

    /// Allows or denies by rules alone.
    fn judge(&self, found: &Match, permit: Permit) -> Decision {
        match self.objection(found) {
            Some(denial) if self.settings.mode == Mode::Enforce => Decision::Deny(denial),
            report => Decision::Allow(self.sign(permit.with_report(report), found)),
        }
    }

    /// Puts the rule that allows the flow on its permit.
    fn sign(&self, permit: Permit, found: &Match) -> Permit {
        match self.rules.get(found.allow as usize) {
            Some(rule) if permit.report().is_none() => {
                permit.with_rule(rule.origin.clone(), rule.sni_required)
            }
            _ => permit,
        }
    }

    /// Why the rules that were found do not allow the flow.
    fn objection(&self, found: &Match) -> Option<Denial> {
        let (reason, rule) = if found.deny != NONE {
            (Reason::DenyRule, found.deny)
        } else if found.allow != NONE {
            return None;
        } else if found.other_protocol != NONE {
            (Reason::Protocol, found.other_protocol)
        } else if found.any != NONE {
            (Reason::Port, found.any)
        } else {
            (Reason::NoRule, NONE)
        };
        Some(Denial::by(reason, self.origin(rule)))
    }

    /// What the rules say of a name as long as its addresses are not known: the rule that allows
    /// it, what `mode: enforce` would have said, and whether SNI is required.
    pub(crate) fn judge_name(
        &self,
        name: &Name,
        port: u16,
        protocol: Protocol,
    ) -> Result<(Option<RuleRef>, Option<Denial>, bool), Denial> {
        if port == 0 {
            return Err(Denial::new(Reason::Port));
        }
        if name.is_localhost() {
            return Err(Denial::new(Reason::SpecialName));
        }
        let mut found = Match::NONE;
        self.visit(name, &mut |slot| {
            found.add(&self.segments, slot, port, protocol)
        });
        match self.objection(&found) {
            Some(denial) if self.settings.mode == Mode::Enforce => Err(denial),
            Some(denial) => Ok((None, Some(denial), false)),
            None => {
                let rule = self.rules.get(found.allow as usize);
                let sni = rule.is_some_and(|rule| rule.sni_required);
                Ok((self.origin(found.allow), None, sni))
            }
        }
    }

    fn origin(&self, rule: RuleId) -> Option<RuleRef> {
        self.rules.get(rule as usize).map(|r| r.origin.clone())
    }

    fn nets_around(&self, address: IpAddr) -> impl Iterator<Item = &nets::Entry> {
        let family = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        family.around(nets::number(address))
    }

    /// What stands in the way of a canonical address, whoever asked for it: a deny rule, or being
    /// special. An IPv4 address inside an IPv6 one is looked at as well.
    fn refusal(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<Refusal> {
        let embedded = special::embedded_v4(address).map(IpAddr::V4);
        let mut deny = NONE;
        let mut closed = false;
        let mut nearest = NONE;
        for address in [Some(address), embedded].into_iter().flatten() {
            let block = special::block_of(address);
            let mut opened = false;
            for entry in self.nets_around(address) {
                let find = |effect| self.segments.find(&entry.slot, effect, port, protocol);
                if let Some(segment) = find(Effect::Deny) {
                    deny = deny.min(segment.rule);
                }
                if let Some(block) = block
                    && let Some(segment) = find(Effect::Allow)
                {
                    if entry.prefix_len >= block.prefix_len && block.kind != Special::Synthetic {
                        opened = true;
                    } else {
                        nearest = nearest.min(segment.rule);
                    }
                }
            }
            closed |= block.is_some() && !opened;
        }
        if deny != NONE {
            Some(Refusal {
                denial: Denial::by(Reason::DenyRule, self.origin(deny)),
                guarded: closed,
            })
        } else if closed {
            Some(Refusal {
                denial: Denial::by(Reason::SpecialAddress, self.origin(nearest)),
                guarded: true,
            })
        } else {
            None
        }
    }

    /// Whether a name may be asked about: some port and protocol is allowed for it and not denied.
    pub fn decide_name(&self, name: &Name) -> NameDecision {
        if name.is_localhost() {
            return NameDecision::Deny(Denial::new(Reason::SpecialName));
        }
        let rule = self.first_open_rule(name);
        let report = if rule == NONE {
            let mut deny = NONE;
            let mut any = NONE;
            self.visit(name, &mut |slot| {
                any = any.min(slot.first_allow);
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    for segment in self.segments.of(slot, Effect::Deny, protocol) {
                        deny = deny.min(segment.rule);
                    }
                }
            });
            // Allowed for some port, yet open on none: then it is deny rules that close it.
            let wholly = self.denies_name(name);
            Some(match wholly {
                Some(denial) => denial,
                None if any != NONE && deny != NONE => {
                    Denial::by(Reason::DenyRule, self.origin(deny))
                }
                None => Denial::new(Reason::NoRule),
            })
        } else {
            None
        };
        match report {
            Some(denial) if self.settings.mode == Mode::Enforce => NameDecision::Deny(denial),
            report => NameDecision::Allow(NamePermit::new(name.clone(), self.origin(rule), report)),
        }
    }

    /// Whether deny rules close a name altogether, all ports of both protocols: the question about
    /// the target of a CNAME, which needs no allow rule of its own.
    #[must_use]
    pub fn denies_name(&self, name: &Name) -> Option<Denial> {
        let mut rule = NONE;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            match self.first_gap(name, 1, protocol) {
                (None, deny) => rule = rule.min(deny),
                (Some(_), _) => return None,
            }
        }
        Some(Denial::by(Reason::DenyRule, self.origin(rule)))
    }

    /// Whether an address may be used for a name at all, whatever the port: not when deny rules
    /// close it altogether, nor when it is special and nothing opens it.
    ///
    /// In `mode: report` only what is never allowed to pass is refused.
    ///
    /// # Errors
    ///
    /// The denial to record.
    pub fn decide_resolved(&self, name: &Name, address: IpAddr) -> Result<(), Denial> {
        if name.is_localhost() {
            return Err(Denial::new(Reason::SpecialName));
        }
        let address = special::canonical(address);
        let embedded = special::embedded_v4(address).map(IpAddr::V4);
        for address in [Some(address), embedded].into_iter().flatten() {
            let block = special::block_of(address);
            let mut opened = false;
            for (i, entry) in self.nets_around(address).enumerate() {
                if i == 0 && entry.denied_wholly != NONE && self.settings.mode == Mode::Enforce {
                    let rule = self.origin(entry.denied_wholly);
                    return Err(Denial::by(Reason::DenyRule, rule));
                }
                opened |= entry.slot.has(Effect::Allow)
                    && block.is_some_and(|b| {
                        entry.prefix_len >= b.prefix_len && b.kind != Special::Synthetic
                    });
            }
            if block.is_some() && !opened {
                return Err(Denial::new(Reason::SpecialAddress));
            }
        }
        Ok(())
    }

    /// Whether an allow rule covers a name on some of these ports.
    pub(crate) fn allows_between(
        &self,
        name: &Name,
        first: u16,
        last: u16,
        protocol: Protocol,
    ) -> bool {
        let mut found = false;
        self.visit(name, &mut |slot| {
            let segments = self.segments.of(slot, Effect::Allow, protocol);
            let at = segments.partition_point(|s| s.last < first);
            found |= segments.get(at).is_some_and(|s| s.first <= last);
        });
        found
    }

    /// The slots that speak about a name.
    fn visit<'a>(&'a self, name: &Name, found: &mut dyn FnMut(&'a Slot)) {
        if name.is_host_alias() {
            found(&self.host);
        } else {
            self.names.visit(name.as_str(), found);
        }
    }

    /// The first port from `from` on that no deny rule closes for the name, and the first deny
    /// rule met on the way.
    fn first_gap(&self, name: &Name, from: u16, protocol: Protocol) -> (Option<u16>, RuleId) {
        let mut port = from;
        let mut rule = NONE;
        loop {
            let mut end = None;
            self.visit(name, &mut |slot| {
                if let Some(s) = self.segments.find(slot, Effect::Deny, port, protocol) {
                    rule = rule.min(s.rule);
                    end = end.max(Some(s.last));
                }
            });
            match end {
                None => return (Some(port), rule),
                Some(u16::MAX) => return (None, rule),
                Some(end) => port = end + 1,
            }
        }
    }

    /// The first allow rule that has a port which no deny rule closes, or [`NONE`].
    fn first_open_rule(&self, name: &Name) -> RuleId {
        let mut first = NONE;
        self.visit(name, &mut |slot| {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for segment in self.segments.of(slot, Effect::Allow, protocol) {
                    if segment.rule < first
                        && let (Some(gap), _) = self.first_gap(name, segment.first, protocol)
                        && gap <= segment.last
                    {
                        first = segment.rule;
                    }
                }
            }
        });
        first
    }
}

/// Finds the networks on which deny rules, together with those of the networks around, leave no
/// port open.
fn mark_denied_wholly(index: &mut NetIndex, segments: &Segments) {
    let mut marks = Vec::new();
    for (id, chain) in index.chains() {
        let slots: Vec<&Slot> = chain
            .map(|entry| &entry.slot)
            .filter(|slot| slot.has(Effect::Deny))
            .collect();
        let mut rule = NONE;
        let closed = [Protocol::Tcp, Protocol::Udp].into_iter().all(|protocol| {
            let mut all: Vec<_> = slots
                .iter()
                .flat_map(|slot| segments.of(slot, Effect::Deny, protocol))
                .collect();
            all.sort_unstable_by_key(|s| s.first);
            let mut next = 1;
            for segment in all {
                if u32::from(segment.first) > next {
                    return false;
                }
                next = next.max(u32::from(segment.last) + 1);
                rule = rule.min(segment.rule);
            }
            next > u32::from(u16::MAX)
        });
        if closed {
            marks.push((id, rule));
        }
    }
    for (id, rule) in marks {
        index.set_denied_wholly(id, rule);
    }
}
