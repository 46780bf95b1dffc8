//! Every kind of rule: an allowed flow and its denied twin.

use std::path::PathBuf;

use odyn_tests::{AuditRecord, Guest, Output, World, serve};

use crate::{program, start};

/// The rules, one of each kind. Line numbers count from the first line here.
const POLICY: &str = r#"version: v1
name: rules
egress:
  allow:
    - exact.shop.example
    - "*.one.shop.example"
    - "api-*.shop.example"
    - "**.deep.shop.example"
    - bücher.shop.example
    - 203.0.113.20
    - 198.51.100.0/24
    - 2001:db8::12
    - fd00:5::/64
    - to: db.shop.example
      ports: [5432, "8200-8201"]
      protocol: tcp
    - to: game.shop.example
      protocol: udp
    - to: 10.1.0.0/16
      ports: [443]
    - "*.wide.shop.example"
    - 10.9.0.0/16
  deny:
    - bad.wide.shop.example
    - 10.9.9.0/24
    - to: part.wide.shop.example
      ports: [25]
"#;

/// Ports that everything listens on.
const PORTS: [u16; 8] = [25, 443, 5432, 5433, 8199, 8200, 8201, 8202];

enum Want {
    /// Allowed by the rule that reads so.
    Allow(&'static str),
    /// Denied when connecting; the reason, and the rule if one did it.
    Deny(&'static str, Option<&'static str>),
    /// The name is refused already; the reason, and the rule if one did it.
    NoName(&'static str, Option<&'static str>),
}
use Want::{Allow, Deny, NoName};

struct Case(&'static str, &'static str, u16, Want);

const NAMES: &[&str] = &[
    "exact.shop.example",
    "sub.exact.shop.example",
    "a.one.shop.example",
    "a.b.one.shop.example",
    "one.shop.example",
    "api-eu.shop.example",
    "apieu.shop.example",
    "api-eu.us.shop.example",
    "a.deep.shop.example",
    "a.b.deep.shop.example",
    "deep.shop.example",
    "xn--bcher-kva.shop.example",
    "xn--bchen-kva.shop.example",
    "db.shop.example",
    "game.shop.example",
    "good.wide.shop.example",
    "bad.wide.shop.example",
    "part.wide.shop.example",
];

fn cases() -> Vec<Case> {
    vec![
        Case(
            "tcp",
            "exact.shop.example",
            443,
            Allow("exact.shop.example"),
        ),
        Case(
            "udp",
            "exact.shop.example",
            443,
            Allow("exact.shop.example"),
        ),
        Case(
            "tcp",
            "sub.exact.shop.example",
            443,
            NoName("no-rule", None),
        ),
        Case(
            "tcp",
            "a.one.shop.example",
            443,
            Allow("*.one.shop.example"),
        ),
        Case("tcp", "a.b.one.shop.example", 443, NoName("no-rule", None)),
        Case("tcp", "one.shop.example", 443, NoName("no-rule", None)),
        Case(
            "tcp",
            "api-eu.shop.example",
            443,
            Allow("api-*.shop.example"),
        ),
        Case("tcp", "apieu.shop.example", 443, NoName("no-rule", None)),
        Case(
            "tcp",
            "api-eu.us.shop.example",
            443,
            NoName("no-rule", None),
        ),
        Case(
            "tcp",
            "a.deep.shop.example",
            443,
            Allow("**.deep.shop.example"),
        ),
        Case(
            "tcp",
            "a.b.deep.shop.example",
            443,
            Allow("**.deep.shop.example"),
        ),
        Case("tcp", "deep.shop.example", 443, NoName("no-rule", None)),
        Case(
            "tcp",
            "xn--bcher-kva.shop.example",
            443,
            Allow("bücher.shop.example"),
        ),
        Case(
            "tcp",
            "xn--bchen-kva.shop.example",
            443,
            NoName("no-rule", None),
        ),
        Case("tcp", "203.0.113.20", 443, Allow("203.0.113.20")),
        Case("udp", "203.0.113.20", 443, Allow("203.0.113.20")),
        Case("tcp", "203.0.113.21", 443, Deny("no-rule", None)),
        Case("udp", "203.0.113.21", 443, Deny("no-rule", None)),
        Case("tcp", "198.51.100.255", 443, Allow("198.51.100.0/24")),
        Case("tcp", "203.0.113.1", 443, Deny("no-rule", None)),
        Case("tcp", "2001:db8::12", 443, Allow("2001:db8::12")),
        Case("tcp", "2001:db8::11", 443, Deny("no-rule", None)),
        Case("tcp", "fd00:5::5", 443, Allow("fd00:5::/64")),
        Case("tcp", "fd00:5:0:1::5", 443, Deny("no-rule", None)),
        Case("tcp", "db.shop.example", 5432, Allow("db.shop.example")),
        Case("tcp", "db.shop.example", 8200, Allow("db.shop.example")),
        Case("tcp", "db.shop.example", 8201, Allow("db.shop.example")),
        Case(
            "tcp",
            "db.shop.example",
            8199,
            Deny("port", Some("db.shop.example")),
        ),
        Case(
            "tcp",
            "db.shop.example",
            8202,
            Deny("port", Some("db.shop.example")),
        ),
        Case(
            "udp",
            "db.shop.example",
            5432,
            Deny("protocol", Some("db.shop.example")),
        ),
        Case("udp", "game.shop.example", 5432, Allow("game.shop.example")),
        Case(
            "tcp",
            "game.shop.example",
            5432,
            Deny("protocol", Some("game.shop.example")),
        ),
        Case("tcp", "10.1.2.3", 443, Allow("10.1.0.0/16")),
        Case("tcp", "10.1.2.3", 5433, Deny("port", Some("10.1.0.0/16"))),
        Case(
            "tcp",
            "good.wide.shop.example",
            443,
            Allow("*.wide.shop.example"),
        ),
        Case(
            "tcp",
            "bad.wide.shop.example",
            443,
            NoName("deny-rule", Some("bad.wide.shop.example")),
        ),
        Case(
            "tcp",
            "part.wide.shop.example",
            443,
            Allow("*.wide.shop.example"),
        ),
        Case(
            "tcp",
            "part.wide.shop.example",
            25,
            Deny("deny-rule", Some("part.wide.shop.example")),
        ),
        Case("tcp", "10.9.1.1", 443, Allow("10.9.0.0/16")),
        Case(
            "tcp",
            "10.9.9.1",
            443,
            Deny("deny-rule", Some("10.9.9.0/24")),
        ),
    ]
}

/// The line of the policy that a rule stands on, in one of the two lists.
fn line_of(rule: &str, denies: bool) -> u64 {
    let deny = POLICY
        .lines()
        .position(|line| line == "  deny:")
        .expect("a list");
    let (at, _) = POLICY
        .lines()
        .enumerate()
        .find(|(at, line)| line.contains(rule) && (*at > deny) == denies)
        .unwrap_or_else(|| panic!("no rule {rule}"));
    at as u64 + 1
}

#[test]
fn every_kind_of_rule_and_its_denied_twin() {
    let mut builder = World::builder().policy(POLICY);
    for name in NAMES {
        builder = builder.name(name, &["203.0.113.40"]);
    }
    let world = start!(builder);
    world
        .internet()
        .ip("address add fd00:5::5 dev lo nodad\naddress add fd00:5:0:1::5 dev lo nodad\n");
    for port in PORTS {
        serve::banner(world.internet().listen(&format!("0.0.0.0:{port}")), "hello");
        for address in ["2001:db8::11", "2001:db8::12", "fd00:5::5", "fd00:5:0:1::5"] {
            serve::banner(
                world.internet().listen(&format!("[{address}]:{port}")),
                "hello",
            );
        }
        for address in ["203.0.113.40", "203.0.113.20", "203.0.113.21"] {
            serve::udp_echo(world.internet().udp(&format!("{address}:{port}")));
        }
    }
    let mut wrong = Vec::new();
    for protocol in ["tcp", "udp"] {
        let cases: Vec<Case> = cases()
            .into_iter()
            .filter(|case| case.0 == protocol)
            .collect();
        let ports: Vec<String> = cases.iter().map(|case| case.2.to_string()).collect();
        let mut words = vec![protocol];
        for (case, port) in cases.iter().zip(&ports) {
            words.extend([case.1, port]);
        }
        let out = world.python(program!("connect"), &words);
        let lines: Vec<&str> = out.ok().lines().collect();
        assert_eq!(lines.len(), cases.len(), "{}", out.describe());
        for (case, line) in cases.iter().zip(lines) {
            if let Err(why) = check(case, line, &out) {
                wrong.push(format!("{protocol} {}:{} {why}", case.1, case.2));
            }
        }
        if !world.direct() {
            // No flow is without a case: one record each, and no more.
            let flows = out
                .audit
                .iter()
                .filter(|record| record.protocol == protocol)
                .count();
            let want = cases
                .iter()
                .filter(|case| !matches!(case.3, NoName(..)))
                .count();
            if flows != want {
                wrong.push(format!("{protocol}: {flows} records for {want} flows"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check(Case(protocol, who, port, want): &Case, line: &str, out: &Output) -> Result<(), String> {
    if out.direct {
        // The control: everything is there, so that a denial means something.
        return line
            .starts_with("ok")
            .then_some(())
            .ok_or(format!("control: {line}"));
    }
    let one = |protocol: &str, port: u16| -> Result<AuditRecord, String> {
        match out.flows(protocol, who, port).as_slice() {
            [record] => Ok((*record).clone()),
            records => Err(format!("{} records", records.len())),
        }
    };
    let judge = |record: &AuditRecord, verdict: &str, reason: Option<&str>, rule: Option<&str>| {
        let line = rule.map(|rule| line_of(rule, reason == Some("deny-rule")));
        let got = (
            record.verdict.as_str(),
            record.reason.as_deref(),
            record.rule.as_deref(),
            record.line,
        );
        let want = (verdict, reason, rule, line);
        if got == want {
            Ok(())
        } else {
            Err(format!("record {got:?}, want {want:?}"))
        }
    };
    match want {
        Allow(rule) => {
            if !line.starts_with("ok") {
                return Err(format!("should work: {line}"));
            }
            judge(&one(protocol, *port)?, "allow", None, Some(rule))
        }
        Deny(reason, rule) => {
            if !line.starts_with("failed E") || line == "failed EOF" {
                return Err(format!("should be refused: {line}"));
            }
            judge(&one(protocol, *port)?, "deny", Some(reason), *rule)
        }
        NoName(reason, rule) => {
            if !line.starts_with("failed -") {
                return Err(format!("the name should not resolve: {line}"));
            }
            let records: Vec<_> = out
                .audit
                .iter()
                .filter(|record| record.is_about(who) && record.protocol == "dns")
                .collect();
            if records.is_empty() {
                return Err("no dns record".to_owned());
            }
            records
                .into_iter()
                .try_for_each(|record| judge(record, "deny", Some(reason), *rule))
        }
    }
}

fn policy_file(world: &World, name: &str, rules: &str) -> PathBuf {
    world.file(name, format!("version: v1\nname: t\negress:\n{rules}"))
}

#[test]
fn the_host_alias_reaches_the_hosts_loopback_and_only_with_its_rule() {
    let world = start!(World::builder().policy("version: v1\nname: t\n"));
    serve::banner(world.host().listen("127.0.0.1:7000"), "the host");
    if world.direct() {
        return;
    }
    let with = policy_file(&world, "with.yaml", "  allow:\n    - host\n");
    let words = ["tcp", "host", "7000"];
    let out = Guest::python(program!("connect"), &words)
        .policy(with)
        .run(&world);
    assert_eq!(out.ok(), "ok the host\n", "{}", out.describe());
    out.allowed("tcp", "host", 7000, "host");
    let without = policy_file(&world, "without.yaml", "  allow:\n    - \"**.example\"\n");
    let out = Guest::python(program!("connect"), &words)
        .policy(without)
        .run(&world);
    assert!(out.ok().starts_with("failed "), "{}", out.describe());
    out.dns_denied("host", "no-rule");
}

#[test]
fn a_policy_without_egress_allows_nothing() {
    let world = start!(
        World::builder()
            .policy("version: v1\nname: t\n")
            .name("api.shop.example", &["203.0.113.10"])
    );
    serve::banner(world.internet().listen("203.0.113.10:443"), "hello");
    let words = ["tcp", "api.shop.example", "443", "203.0.113.10", "443"];
    let out = world.python(program!("connect"), &words);
    if world.direct() {
        assert_eq!(out.ok(), "ok hello\nok hello\n");
        return;
    }
    assert_eq!(out.ok().matches("failed ").count(), 2);
    out.dns_denied("api.shop.example", "no-rule");
    out.denied("tcp", "203.0.113.10", 443, "no-rule");
}
