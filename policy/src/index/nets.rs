//! Addresses to slots.
//!
//! Networks either nest or are disjoint. So they cut the address space into stretches with one
//! innermost network each. A lookup finds the stretch by binary search and then goes outwards from
//! network to network.

use ipnet::IpNet;

use super::{NONE, RuleId, RuleSlot, number};

/// A network of the policy.
#[derive(Debug)]
pub(crate) struct NetEntry {
    pub(crate) prefix_len: u8,
    /// The next wider network, or [`NONE`].
    parent: u32,
    pub(crate) slot: RuleSlot,
    /// The deny rule to name when this network and those around it deny every port, or [`NONE`].
    pub(crate) denied_wholly: RuleId,
}

/// Networks of one address family, with addresses as numbers.
#[derive(Debug, Default)]
pub(crate) struct NetIndex {
    /// First addresses of the stretches, ascending.
    starts: Vec<u128>,
    /// The innermost network of each stretch, or [`NONE`].
    owners: Vec<u32>,
    entries: Vec<NetEntry>,
}

impl NetIndex {
    /// Builds the index of networks of one family, each given once, in any order.
    pub(crate) fn build(mut nets: Vec<(IpNet, RuleSlot)>) -> Self {
        nets.sort_by_key(|(net, _)| (first(*net), net.prefix_len()));
        let mut index = Self::default();
        // The networks around the current address, outermost first, with their last addresses.
        let mut open: Vec<(u32, u128)> = Vec::new();
        for (net, slot) in nets {
            let start = first(net);
            index.close(&mut open, Some(start));
            let id = number(index.entries.len());
            let parent = open.last().map_or(NONE, |(parent, _)| *parent);
            index.entries.push(NetEntry {
                prefix_len: net.prefix_len(),
                parent,
                slot,
                denied_wholly: NONE,
            });
            index.stretch(start, id);
            open.push((id, last(net)));
        }
        index.close(&mut open, None);
        index
    }

    /// Ends the networks that lie before `until`.
    fn close(&mut self, open: &mut Vec<(u32, u128)>, until: Option<u128>) {
        while let Some((_, end)) = open.last().copied() {
            if until.is_some_and(|until| end >= until) {
                return;
            }
            open.pop();
            let outer = open.last().map_or(NONE, |(id, _)| *id);
            if let Some(next) = end.checked_add(1) {
                self.stretch(next, outer);
            }
        }
    }

    fn stretch(&mut self, start: u128, owner: u32) {
        if self.starts.last() == Some(&start) {
            if let Some(last) = self.owners.last_mut() {
                *last = owner;
            }
        } else {
            self.starts.push(start);
            self.owners.push(owner);
        }
    }

    /// The networks around an address, innermost first.
    pub(crate) fn around(&self, address: u128) -> impl Iterator<Item = &NetEntry> {
        let stretch = self.starts.partition_point(|start| *start <= address);
        let innermost = stretch
            .checked_sub(1)
            .and_then(|at| self.owners.get(at))
            .and_then(|id| self.entries.get(*id as usize));
        std::iter::successors(innermost, |entry| self.entries.get(entry.parent as usize))
    }

    /// Every network with those around it, innermost first.
    pub(crate) fn chains(&self) -> impl Iterator<Item = (usize, impl Iterator<Item = &NetEntry>)> {
        self.entries.iter().enumerate().map(|(id, entry)| {
            let chain = std::iter::successors(Some(entry), |e| self.entries.get(e.parent as usize));
            (id, chain)
        })
    }

    pub(crate) fn set_denied_wholly(&mut self, id: usize, rule: RuleId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.denied_wholly = rule;
        }
    }
}

/// An address as a number.
pub(crate) fn as_number(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(v4) => u128::from(u32::from(v4)),
        std::net::IpAddr::V6(v6) => u128::from(v6),
    }
}

fn first(net: IpNet) -> u128 {
    as_number(net.network())
}

fn last(net: IpNet) -> u128 {
    // `broadcast` is the last address in both families.
    as_number(net.broadcast())
}
