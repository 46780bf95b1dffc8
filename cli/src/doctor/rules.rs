//! Tries each nftables expression alone, so that doctor names all missing ones at once. Only for a
//! temporary namespace.

use std::net::{IpAddr, SocketAddr};

use odyn_net::capture::nft::ruleset::{
    Action, Chain, Hook, Kind, L4, Match, Policy, Rule, Ruleset,
};
use odyn_net::capture::nft::{LOG_GROUP, UDP_MARK, try_rules};
use odyn_net::capture::routes::OwnAddresses;

use crate::doctor::catalogue::Id;
use crate::doctor::check::Finding;
use crate::doctor::trial::finding_of;

/// An arbitrary port: no packet is sent.
const PORT: u16 = 9;

/// Tries each expression of the capture rules.
pub(super) fn each(own: OwnAddresses) -> Vec<(Id, Finding)> {
    let tables = try_alone(Vec::new());
    let mut findings = vec![(Id::NfTables, tables.clone())];
    for (id, chains) in parts(own) {
        let finding = if tables == Finding::present("") {
            try_alone(chains)
        } else {
            // Expressions live in a table: without tables nothing can be tried.
            Finding {
                detail: "there are no tables to try it in".into(),
                ..tables.clone()
            }
        };
        findings.push((id, finding));
    }
    findings
}

fn try_alone(chains: Vec<Chain>) -> Finding {
    match try_rules(&Ruleset { chains }) {
        Ok(()) => Finding::present(""),
        Err(error) => finding_of(&error),
    }
}

fn parts(own: OwnAddresses) -> Vec<(Id, Vec<Chain>)> {
    let mut targets = vec![SocketAddr::new(IpAddr::V4(own.v4), PORT)];
    targets.extend(own.v6.map(|v6| SocketAddr::new(IpAddr::V6(v6), PORT)));
    let filter = |rules| chain(Kind::Filter, Hook::Output, 0, rules);
    let for_each = |action: fn(SocketAddr) -> Rule| targets.iter().copied().map(action).collect();
    vec![
        (
            Id::NftNat,
            vec![chain(
                Kind::Nat,
                Hook::Output,
                -100,
                for_each(|to| Rule {
                    matches: vec![Match::FamilyOf(to), Match::Protocol(L4::Tcp)],
                    action: Action::Dnat(to),
                }),
            )],
        ),
        (
            Id::NftRoute,
            vec![chain(
                Kind::Route,
                Hook::Output,
                -150,
                vec![rule(Action::SetMark(UDP_MARK))],
            )],
        ),
        (
            Id::NftFib,
            vec![filter(vec![Rule {
                matches: vec![Match::LocalDestination],
                action: Action::Accept,
            }])],
        ),
        (
            Id::NftReject,
            vec![filter(vec![
                Rule {
                    matches: vec![Match::Protocol(L4::Tcp)],
                    action: Action::RejectReset,
                },
                rule(Action::RejectProhibited),
            ])],
        ),
        (
            Id::NftTproxy,
            vec![chain(
                Kind::Filter,
                Hook::Prerouting,
                -150,
                for_each(|to| Rule {
                    matches: vec![Match::FamilyOf(to), Match::Protocol(L4::Udp)],
                    action: Action::Tproxy(to),
                }),
            )],
        ),
        (
            Id::NftLog,
            vec![filter(vec![rule(Action::Log {
                group: LOG_GROUP,
                snaplen: 64,
            })])],
        ),
    ]
}

fn rule(action: Action) -> Rule {
    Rule {
        matches: Vec::new(),
        action,
    }
}

fn chain(kind: Kind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain {
        name: "trial",
        kind,
        hook,
        priority,
        policy: Policy::Accept,
        rules,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use super::*;
    use odyn_net::capture::nft::Steering;
    use odyn_net::capture::nft::ruleset::capture;

    /// Fails when the capture rules get an expression that has no trial here.
    #[test]
    fn everything_that_capture_uses_is_tried() {
        let own = OwnAddresses {
            v4: odyn_proto::synthetic::GUEST_V4,
            v6: Some(odyn_proto::synthetic::GUEST_V6),
        };
        let at = |ip: IpAddr| Steering {
            tcp: SocketAddr::new(ip, 1),
            udp: SocketAddr::new(ip, 2),
            dns_udp: SocketAddr::new(ip, 3),
            dns_tcp: SocketAddr::new(ip, 4),
        };
        let tried: Vec<Chain> = parts(own).into_iter().flat_map(|(_, c)| c).collect();
        let used = capture(&[
            at(odyn_proto::synthetic::GUEST_V4.into()),
            at(odyn_proto::synthetic::GUEST_V6.into()),
        ]);
        // These are part of nf_tables itself: every kernel with tables has them.
        let core = [Action::Accept, Action::Return, Action::Drop].map(|a| discriminant(&a));
        let actions = |chains: &[Chain]| -> HashSet<_> {
            let rules = chains.iter().flat_map(|c| &c.rules);
            let all = rules.map(|r| discriminant(&r.action));
            all.filter(|d| !core.contains(d)).collect()
        };
        assert_eq!(actions(&used.chains), actions(&tried));
        let kinds = |chains: &[Chain]| -> HashSet<_> {
            chains.iter().map(|c| discriminant(&c.kind)).collect()
        };
        assert_eq!(kinds(&used.chains), kinds(&tried));
        let fib = |chains: &[Chain]| {
            let mut matches = chains
                .iter()
                .flat_map(|c| &c.rules)
                .flat_map(|r| &r.matches);
            matches.any(|m| *m == Match::LocalDestination)
        };
        assert!(fib(&used.chains) && fib(&tried));
    }
}
