//! Decisions for DNS, about names and their addresses, before any flow.

use std::net::IpAddr;

use odyn_proto::DnsName;

use super::Policy;
use super::decide::RuleMatch;
use crate::decision::NameDecision;
use crate::denial::{Denial, Reason};
use crate::index::{NONE, RuleId, RuleSlot};
use crate::permit::NamePermit;
use crate::ports::Protocol;
use crate::rule::{Effect, RuleRef};
use crate::settings::Mode;
use crate::special;
use crate::special::Special;

impl Policy {
    /// Decides whether a name may be looked up: some port of it is allowed and not denied.
    pub fn decide_name(&self, name: &DnsName) -> NameDecision {
        if name.is_localhost() {
            return NameDecision::Deny(Denial::new(Reason::SpecialName));
        }
        let rule = self.first_open_rule(name);
        let report = if rule == NONE {
            let mut deny = NONE;
            let mut any = NONE;
            self.visit(name, &mut |slot| {
                any = any.min(self.slots.first_allow(slot));
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    for segment in self.slots.segments(slot, Effect::Deny, protocol) {
                        deny = deny.min(segment.rule);
                    }
                }
            });
            // If a rule allows some port and yet none is open, deny rules close the name.
            let wholly = self.denies_name(name);
            Some(match wholly {
                Some(denial) => denial,
                None if any != NONE && deny != NONE => {
                    Denial::by(Reason::DenyRule, self.reference(deny))
                }
                None => Denial::new(Reason::NoRule),
            })
        } else {
            None
        };
        match report {
            Some(denial) if self.settings.mode == Mode::Enforce => NameDecision::Deny(denial),
            report => {
                NameDecision::Allow(NamePermit::new(name.clone(), self.reference(rule), report))
            }
        }
    }

    /// The denial of a name that deny rules close on every port of both protocols.
    ///
    /// This decides about the target of a CNAME, which needs no allow rule.
    #[must_use]
    pub fn denies_name(&self, name: &DnsName) -> Option<Denial> {
        let mut rule = NONE;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            match self.first_gap(name, 1, protocol) {
                (None, deny) => rule = rule.min(deny),
                (Some(_), _) => return None,
            }
        }
        Some(Denial::by(Reason::DenyRule, self.reference(rule)))
    }

    /// Decides whether an address may be used for a name, whatever the port.
    ///
    /// It may not if deny rules close every port, or if it is special and no rule opens it. In
    /// `mode: report`, only addresses that never pass are refused.
    ///
    /// # Errors
    /// The denial to record.
    pub fn decide_resolved(&self, name: &DnsName, address: IpAddr) -> Result<(), Denial> {
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
                    let rule = self.reference(entry.denied_wholly);
                    return Err(Denial::by(Reason::DenyRule, rule));
                }
                opened |= self.slots.first_allow(entry.slot) != NONE
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

    /// Whether an allow rule covers a name on a port of this range.
    pub(crate) fn allows_between(
        &self,
        name: &DnsName,
        first: u16,
        last: u16,
        protocol: Protocol,
    ) -> bool {
        let mut found = false;
        self.visit(name, &mut |slot| {
            let next = self.slots.find_from(slot, Effect::Allow, first, protocol);
            found |= next.is_some_and(|s| s.first <= last);
        });
        found
    }

    /// Calls `found` with each slot that matches a name.
    fn visit(&self, name: &DnsName, found: &mut dyn FnMut(RuleSlot)) {
        if name.is_host_alias() {
            found(self.host);
        } else {
            self.names.visit(name.as_str(), found);
        }
    }

    /// The first port from `from` on that no deny rule closes, and the first deny rule before it.
    fn first_gap(&self, name: &DnsName, from: u16, protocol: Protocol) -> (Option<u16>, RuleId) {
        let mut port = from;
        let mut rule = NONE;
        loop {
            let mut end = None;
            self.visit(name, &mut |slot| {
                if let Some(s) = self.slots.find(slot, Effect::Deny, port, protocol) {
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

    /// The first allow rule with a port that no deny rule closes, or [`NONE`].
    fn first_open_rule(&self, name: &DnsName) -> RuleId {
        let mut first = NONE;
        self.visit(name, &mut |slot| {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for segment in self.slots.segments(slot, Effect::Allow, protocol) {
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

    /// Decides about a name whose addresses are not known.
    ///
    /// Returns the rule that allows it, or the denial that `mode: enforce` would have given.
    pub(crate) fn judge_name(
        &self,
        name: &DnsName,
        port: u16,
        protocol: Protocol,
    ) -> Result<(Option<RuleRef>, Option<Denial>), Denial> {
        if port == 0 {
            return Err(Denial::new(Reason::Port));
        }
        if name.is_localhost() {
            return Err(Denial::new(Reason::SpecialName));
        }
        let mut found = RuleMatch::NONE;
        self.visit(name, &mut |slot| {
            found.add(&self.slots, slot, port, protocol)
        });
        match self.objection(&found) {
            Some(denial) if self.settings.mode == Mode::Enforce => Err(denial),
            Some(denial) => Ok((None, Some(denial))),
            None => Ok((self.reference(found.allow), None)),
        }
    }
}
