//! The index compared with the naive reference, on random policies.

mod common;

use odyn_policy::{Destination, Flow, Mode, NameDecision, Policy, Reason, load};
use odyn_policy_reference::{Reference, ReferenceVerdict};

use common::{Random, address, name, policy, port, protocol};

fn rounds(seed: u64, count: usize, rules: usize, mut each: impl FnMut(&mut Random, &Policy, &str)) {
    for round in 0..count {
        let mut random = Random(seed.wrapping_add(round as u64));
        let text = policy(&mut random, 1 + round % rules);
        let loaded = load("random.yaml", &text);
        let Some(policy) = loaded.policy else {
            panic!("round {round}: {:?}\n{text}", loaded.diagnostics);
        };
        each(&mut random, &policy, &text);
    }
}

#[test]
fn decide_agrees_with_the_reference() {
    let mut allowed = 0_usize;
    let mut reasons = std::collections::BTreeSet::new();
    rounds(1, 4000, 24, |random, policy, text| {
        let reference = Reference::new(policy);
        for _ in 0..40 {
            let name = name(random);
            let resolved: Vec<_> = (0..random.below(4)).map(|_| address(random)).collect();
            let destination = match random.below(8) {
                0 => Destination::Host,
                1..=3 => Destination::Address(address(random)),
                _ => Destination::Name {
                    name: &name,
                    resolved: &resolved,
                },
            };
            let flow = Flow {
                destination,
                port: port(random),
                protocol: protocol(random),
            };
            let fast = ReferenceVerdict::from(&policy.decide(&flow));
            let slow = reference.decide(&flow);
            assert_eq!(fast, slow, "{flow:?}\n{text}");
            allowed += usize::from(fast.allowed);
            reasons.extend(fast.reason);
        }
    });
    // The test proves nothing if one of the answers never occurs.
    assert!(allowed > 10_000, "{allowed}");
    for reason in [
        Reason::NoRule,
        Reason::DenyRule,
        Reason::Port,
        Reason::Protocol,
        Reason::SpecialAddress,
        Reason::SpecialName,
        Reason::NoAddress,
        Reason::UnknownSynthetic,
    ] {
        assert!(reasons.contains(&reason), "{reason} never came up");
    }
}

#[test]
fn names_agree_with_the_reference() {
    let (mut open, mut closed, mut denied) = (0, 0, 0);
    rounds(2, 4000, 24, |random, policy, text| {
        let reference = Reference::new(policy);
        for _ in 0..20 {
            let name = name(random);
            assert_eq!(
                policy.denies_name(&name).is_some(),
                reference.is_denied_name(&name),
                "denies_name {name}\n{text}"
            );
            denied += i32::from(policy.denies_name(&name).is_some());
            if name.is_localhost() {
                assert!(matches!(policy.decide_name(&name), NameDecision::Deny(_)));
                continue;
            }
            let fits = match policy.decide_name(&name) {
                NameDecision::Allow(permit) => permit.report().is_none(),
                NameDecision::Deny(_) => {
                    assert_eq!(policy.settings().mode, Mode::Enforce, "{name}\n{text}");
                    false
                }
            };
            assert_eq!(
                fits,
                reference.is_open_name(&name),
                "decide_name {name}\n{text}"
            );
            if fits { open += 1 } else { closed += 1 }
        }
    });
    assert!(
        open > 1000 && closed > 1000 && denied > 1000,
        "{open} {closed} {denied}"
    );
}

#[test]
fn resolved_addresses_agree_with_the_reference() {
    let example = odyn_proto::DnsName::parse("a.example").unwrap();
    let (mut good, mut bad) = (0, 0);
    rounds(3, 4000, 24, |random, policy, text| {
        let reference = Reference::new(policy);
        for _ in 0..10 {
            let address = address(random);
            let verdict = policy.decide_resolved(&example, address);
            let by_rule = reference.is_denied_address(address);
            match &verdict {
                Ok(()) => good += 1,
                Err(denial) => {
                    bad += 1;
                    if denial.reason == Reason::DenyRule {
                        assert!(by_rule, "{address}\n{text}");
                    }
                }
            }
            if by_rule && policy.settings().mode == Mode::Enforce {
                assert!(verdict.is_err(), "{address}\n{text}");
            }
            // An address that is refused here is refused for every port.
            if verdict.is_err() {
                let flow = Flow {
                    destination: Destination::Name {
                        name: &example,
                        resolved: &[address],
                    },
                    port: port(random),
                    protocol: protocol(random),
                };
                assert!(!policy.decide(&flow).is_allow(), "{flow:?}\n{text}");
            }
        }
    });
    assert!(good > 1000 && bad > 1000, "{good} {bad}");
}
