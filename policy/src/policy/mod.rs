//! The compiled policy.

mod decide;
mod names;

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use crate::index::names::NameIndex;
use crate::index::nets::NetIndex;
use crate::index::{NONE, RuleId, RuleSlot, Slots};
use crate::pattern::Pattern;
use crate::ports::Protocol;
use crate::rule::{Effect, Rule, RuleRef, RuleTable, RuleTarget};
use crate::settings::PolicySettings;

/// A compiled policy, made by [`crate::load()`]. Share it in an `Arc`.
#[derive(Debug)]
pub struct Policy {
    settings: PolicySettings,
    rules: Arc<RuleTable>,
    slots: Slots,
    host: RuleSlot,
    names: NameIndex,
    v4: NetIndex,
    v6: NetIndex,
}

impl Policy {
    pub(crate) fn compile(file_name: &str, settings: PolicySettings, rules: Vec<Rule>) -> Self {
        let rules = Arc::new(RuleTable::new(file_name.into(), rules));
        let mut host = Vec::new();
        let mut names: HashMap<&Pattern, Vec<RuleId>> = HashMap::new();
        let mut networks: HashMap<IpNet, Vec<RuleId>> = HashMap::new();
        for (id, rule) in (0..).zip(rules.rules()) {
            match &rule.target {
                RuleTarget::Host => host.push(id),
                RuleTarget::Name(pattern) => names.entry(pattern).or_default().push(id),
                RuleTarget::Net(net) => networks.entry(*net).or_default().push(id),
            }
        }
        let mut slots = Slots::default();
        let host = slots.add(&host, rules.rules());
        let mut name_index = NameIndex::default();
        for (pattern, ids) in names {
            name_index.insert(pattern, slots.add(&ids, rules.rules()));
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, ids) in networks {
            let family = match net {
                IpNet::V4(_) => &mut v4,
                IpNet::V6(_) => &mut v6,
            };
            family.push((net, slots.add(&ids, rules.rules())));
        }
        let [v4, v6] = [v4, v6].map(|family| {
            let mut index = NetIndex::build(family);
            mark_denied_wholly(&mut index, &slots);
            index
        });
        Self {
            settings,
            rules,
            slots,
            host,
            names: name_index,
            v4,
            v6,
        }
    }

    /// Everything in the file that is not an egress rule.
    #[must_use]
    pub fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// The rules in the order in which they are reported.
    pub fn rules(&self) -> impl Iterator<Item = RuleRef> {
        self.numbered_rules()
            .filter_map(|(id, _)| self.reference(id))
    }

    pub(crate) fn rule_list(&self) -> &[Rule] {
        self.rules.rules()
    }

    /// The rules with their numbers.
    pub(crate) fn numbered_rules(&self) -> impl Iterator<Item = (RuleId, &Rule)> {
        (0..).zip(self.rules.rules())
    }

    /// A rule by its number.
    pub(crate) fn reference(&self, rule: RuleId) -> Option<RuleRef> {
        self.rules.reference(rule)
    }

    /// The number of allow rules and of deny rules.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let is_allow = |rule: &&Rule| rule.effect == Effect::Allow;
        let allow = self.rule_list().iter().filter(is_allow).count();
        (allow, self.rule_list().len() - allow)
    }
}

/// Marks the networks on which deny rules leave no port open.
///
/// The deny rules of the networks around count as well.
fn mark_denied_wholly(index: &mut NetIndex, slots: &Slots) {
    let mut marks = Vec::new();
    for (id, chain) in index.chains() {
        let around: Vec<RuleSlot> = chain.map(|entry| entry.slot).collect();
        let mut rule = NONE;
        let closed = [Protocol::Tcp, Protocol::Udp].into_iter().all(|protocol| {
            let deny = |slot: &RuleSlot| slots.segments(*slot, Effect::Deny, protocol);
            let mut all: Vec<_> = around.iter().flat_map(deny).collect();
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
