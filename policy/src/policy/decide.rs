//! Decisions about flows.

use std::net::IpAddr;

use odyn_proto::DnsName;

use super::Policy;
use crate::decision::{Decision, Destination, Flow};
use crate::denial::{Denial, Reason};
use crate::index::{NONE, RuleId, RuleSlot, Slots, nets};
use crate::permit::{Addresses, Permit};
use crate::ports::Protocol;
use crate::rule::Effect;
use crate::settings::Mode;
use crate::special;
use crate::special::Special;

/// The rules that match a destination and port, before addresses are checked.
#[derive(Clone, Copy)]
pub(super) struct RuleMatch {
    deny: RuleId,
    pub(super) allow: RuleId,
    /// An allow rule for the port, but the other protocol.
    other_protocol: RuleId,
    /// An allow rule, whatever its ports.
    any: RuleId,
}

impl RuleMatch {
    pub(super) const NONE: Self = Self {
        deny: NONE,
        allow: NONE,
        other_protocol: NONE,
        any: NONE,
    };

    pub(super) fn add(&mut self, slots: &Slots, slot: RuleSlot, port: u16, protocol: Protocol) {
        if let Some(segment) = slots.find(slot, Effect::Deny, port, protocol) {
            self.deny = self.deny.min(segment.rule);
        }
        self.add_allow(slots, slot, port, protocol);
    }

    fn add_allow(&mut self, slots: &Slots, slot: RuleSlot, port: u16, protocol: Protocol) {
        let any = slots.first_allow(slot);
        if any == NONE {
            return;
        }
        self.any = self.any.min(any);
        if let Some(segment) = slots.find(slot, Effect::Allow, port, protocol) {
            self.allow = self.allow.min(segment.rule);
        } else if let Some(segment) = slots.find(slot, Effect::Allow, port, protocol.other()) {
            self.other_protocol = self.other_protocol.min(segment.rule);
        }
    }
}

/// The refusal of an address.
struct AddressRefusal {
    denial: Denial,
    /// True if `mode: report` denies the address, too.
    guarded: bool,
}

impl Policy {
    /// Decides one flow. Allocates nothing; the cost hardly depends on the number of rules.
    ///
    /// - Deny beats allow; what no rule allows is denied.
    /// - Port 0 is never allowed.
    /// - An address needs an address rule; name rules never match it. A name needs a name rule,
    ///   and its addresses must not be denied by an address rule, nor be special unless an allow
    ///   rule for this port that lies inside the special block covers them. Refused addresses are
    ///   left out; if none is left, the flow is denied for the reason of the first.
    /// - The name `host` is [`Destination::Host`], and only a `host` rule is about it.
    ///   `localhost` and names below it are always denied (RFC 6761: it never leaves a machine).
    /// - A record names the most specific rule that matches, and of equals the first in
    ///   the file: exact names, then patterns by literal characters; longer prefixes first.
    ///   The conditions are those of that rule.
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
        let mut found = RuleMatch::NONE;
        found.add(&self.slots, self.host, port, protocol);
        self.judge(&found, Permit::host(port, protocol))
    }

    fn decide_named(
        &self,
        name: &DnsName,
        resolved: &[IpAddr],
        port: u16,
        protocol: Protocol,
    ) -> Decision {
        if name.is_localhost() {
            return Decision::Deny(Denial::new(Reason::SpecialName));
        }
        let mut found = RuleMatch::NONE;
        self.names.visit(name.as_str(), |slot| {
            found.add(&self.slots, slot, port, protocol);
        });
        let by_name = self.objection(&found);
        if let Some(denial) = &by_name
            && self.settings.mode == Mode::Enforce
        {
            return Decision::Deny(denial.clone());
        }

        let mut addresses = Addresses::new();
        // Addresses that only `mode: report` lets pass, for use if no other address is allowed.
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
        let mut found = RuleMatch::NONE;
        for entry in self.nets_around(address) {
            found.add_allow(&self.slots, entry.slot, port, protocol);
        }
        let refusal = self.refusal(address, port, protocol);
        let denial = match refusal {
            Some(AddressRefusal {
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

    /// Decides by rules alone.
    fn judge(&self, found: &RuleMatch, permit: Permit) -> Decision {
        match self.objection(found) {
            Some(denial) if self.settings.mode == Mode::Enforce => Decision::Deny(denial),
            report => Decision::Allow(self.sign(permit.with_report(report), found)),
        }
    }

    /// Puts the rule that allows the flow on its permit.
    fn sign(&self, permit: Permit, found: &RuleMatch) -> Permit {
        match self.reference(found.allow) {
            Some(rule) if permit.report().is_none() => permit.with_rule(rule),
            _ => permit,
        }
    }

    /// The denial by the rules that matched; `None` if they allow the flow.
    pub(super) fn objection(&self, found: &RuleMatch) -> Option<Denial> {
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
        Some(Denial::by(reason, self.reference(rule)))
    }

    pub(super) fn nets_around(&self, address: IpAddr) -> impl Iterator<Item = &nets::NetEntry> {
        let family = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        family.around(nets::as_number(address))
    }

    /// The refusal of a canonical address: a deny rule matches, or the address is special.
    ///
    /// An IPv4 address inside an IPv6 one is checked as well.
    fn refusal(&self, address: IpAddr, port: u16, protocol: Protocol) -> Option<AddressRefusal> {
        let embedded = special::embedded_v4(address).map(IpAddr::V4);
        let mut deny = NONE;
        let mut closed = false;
        let mut nearest = NONE;
        for address in [Some(address), embedded].into_iter().flatten() {
            let block = special::block_of(address);
            let mut opened = false;
            for entry in self.nets_around(address) {
                let find = |effect| self.slots.find(entry.slot, effect, port, protocol);
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
            Some(AddressRefusal {
                denial: Denial::by(Reason::DenyRule, self.reference(deny)),
                guarded: closed,
            })
        } else if closed {
            Some(AddressRefusal {
                denial: Denial::by(Reason::SpecialAddress, self.reference(nearest)),
                guarded: true,
            })
        } else {
            None
        }
    }
}
