//! A name that is allowed is no way to an address that is not.

use std::io::ErrorKind;
use std::net::TcpListener;

use odyn_tests::{Output, World, serve};

use crate::{program, start};

const POLICY: &str = "\
version: v1
name: t
egress:
  allow:
    - \"*.shop.example\"
    - 203.0.113.0/24
  deny:
    - 203.0.113.66
    - 203.0.113.128/25
    - tracker.example.net
";

/// Names under an allowed wildcard, and what they resolve to.
const SPECIAL: &[(&str, &str)] = &[
    ("loop.shop.example", "127.0.0.1"),
    ("loop2.shop.example", "127.8.8.8"),
    ("metadata.shop.example", "169.254.169.254"),
    ("zero.shop.example", "0.0.0.0"),
    ("many.shop.example", "224.0.0.1"),
    ("all.shop.example", "255.255.255.255"),
    ("loop6.shop.example", "::1"),
    ("zero6.shop.example", "::"),
    ("link6.shop.example", "fe80::1"),
    ("many6.shop.example", "ff02::1"),
    ("metadata6.shop.example", "fd00:ec2::254"),
    ("mapped.shop.example", "::ffff:127.0.0.1"),
    ("mappedmeta.shop.example", "::ffff:169.254.169.254"),
    ("nat64.shop.example", "64:ff9b::7f00:1"),
];

fn assert_untouched(listener: &TcpListener) {
    listener.set_nonblocking(true).expect("a socket");
    let error = listener.accept().expect_err("a connection got through");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

/// Asserts that the name was denied for that reason, by the resolver or at the
/// connect, and nothing else came of it.
#[track_caller]
fn denied_somewhere(out: &Output, name: &str, reason: &str) {
    let records: Vec<_> = out
        .audit
        .iter()
        .filter(|record| record.is_about(name))
        .collect();
    assert!(
        records
            .iter()
            .any(|record| { record.verdict == "deny" && record.reason.as_deref() == Some(reason) }),
        "no denial of {name} for {reason}\n{}",
        out.describe()
    );
    for record in records.iter().filter(|record| record.protocol != "dns") {
        assert_eq!(record.verdict, "deny", "{}", out.describe());
        assert_eq!(record.dialled, None, "{}", out.describe());
    }
}

#[test]
fn a_name_is_no_way_to_a_special_address() {
    let mut builder = World::builder().policy(POLICY);
    for (name, address) in SPECIAL {
        builder = builder.name(name, &[address]);
    }
    let world = start!(builder);
    let listeners = [
        world.host().listen("0.0.0.0:7000"),
        world.host().listen("[::1]:7000"),
        world.internet().listen("169.254.169.254:7000"),
        world.internet().listen("[fd00:ec2::254]:7000"),
    ];
    let mut words = vec!["tcp"];
    for (name, _) in SPECIAL {
        words.extend([name, "7000"]);
    }
    if world.direct() {
        return; // In the control run the listeners would only accept.
    }
    let out = world.python(program!("connect"), &words);
    assert_eq!(
        out.ok().lines().count(),
        SPECIAL.len(),
        "{}",
        out.describe()
    );
    for (line, (name, address)) in out.stdout.lines().zip(SPECIAL) {
        assert!(line.starts_with("failed "), "{name} ({address}): {line}");
        assert_ne!(line, "failed TimeoutError", "{name} ({address})");
        denied_somewhere(&out, name, "special-address");
    }
    listeners.iter().for_each(assert_untouched);
}

#[test]
fn a_special_address_as_a_literal_is_denied() {
    let policy = "version: v1\nname: t\negress:\n  mode: enforce\n  allow:\n    - \"**.example\"\n";
    let world = start!(World::builder().policy(policy));
    let listener = world.internet().listen("169.254.169.254:80");
    if world.direct() {
        return;
    }
    let out = world.guest(&[
        "curl",
        "-sS",
        "-m",
        "20",
        "http://169.254.169.254/latest/meta-data/",
    ]);
    assert_ne!(out.failed().code, 28, "a time-out is no honest denial");
    let record = out.flow("tcp", "169.254.169.254", 80).expect("a record");
    assert_eq!(record.verdict, "deny");
    assert_untouched(&listener);
}

#[test]
fn an_explicit_rule_opens_a_special_address() {
    let policy = "version: v1\nname: t\negress:\n  allow:\n    - 169.254.169.254\n";
    let world = start!(World::builder().policy(policy));
    serve::banner(world.internet().listen("169.254.169.254:80"), "metadata");
    let out = world.python(program!("connect"), &["tcp", "169.254.169.254", "80"]);
    assert_eq!(out.ok(), "ok metadata\n", "{}", out.describe());
    out.allowed("tcp", "169.254.169.254", 80, "169.254.169.254");
}

#[test]
fn a_name_is_no_way_to_a_denied_address() {
    let world = start!(
        World::builder()
            .policy(POLICY)
            .name("one.shop.example", &["203.0.113.66"])
            .name("net.shop.example", &["203.0.113.200"])
            .name("fine.shop.example", &["203.0.113.10"])
    );
    serve::banner(world.internet().listen("203.0.113.10:7000"), "fine");
    let listeners = [
        world.internet().listen("203.0.113.66:7000"),
        world.internet().listen("203.0.113.200:7000"),
    ];
    if world.direct() {
        return;
    }
    let words = [
        "tcp",
        "one.shop.example",
        "7000",
        "net.shop.example",
        "7000",
        "203.0.113.66",
        "7000",
        "fine.shop.example",
        "7000",
    ];
    let out = world.python(program!("connect"), &words);
    let lines: Vec<&str> = out.ok().lines().collect();
    assert!(
        lines[..3].iter().all(|line| line.starts_with("failed ")),
        "{}",
        out.describe()
    );
    assert_eq!(lines[3], "ok fine");
    denied_somewhere(&out, "one.shop.example", "deny-rule");
    denied_somewhere(&out, "net.shop.example", "deny-rule");
    out.denied("tcp", "203.0.113.66", 7000, "deny-rule");
    listeners.iter().for_each(assert_untouched);
}

#[test]
fn a_name_with_one_good_and_one_bad_address_goes_to_the_good_one() {
    let world = start!(World::builder().policy(POLICY).name(
        "mixed.shop.example",
        &["203.0.113.66", "203.0.113.10", "127.0.0.1"]
    ));
    serve::banner(world.internet().listen("203.0.113.10:7000"), "fine");
    let bad = [
        world.internet().listen("203.0.113.66:7000"),
        world.host().listen("127.0.0.1:7000"),
    ];
    if world.direct() {
        return;
    }
    let out = world.python(program!("connect"), &["tcp", "mixed.shop.example", "7000"]);
    assert_eq!(out.ok(), "ok fine\n", "{}", out.describe());
    let record = out
        .flow("tcp", "mixed.shop.example", 7000)
        .expect("a record");
    assert_eq!(record.dialled.as_deref(), Some("203.0.113.10:7000"));
    bad.iter().for_each(assert_untouched);
}

#[test]
fn an_alias_of_a_denied_name_is_denied_and_of_an_unlisted_one_is_not() {
    let world = start!(
        World::builder()
            .policy(POLICY)
            .name("tracker.example.net", &["203.0.113.11"])
            .name("cdn.example.net", &["203.0.113.10"])
            .cname("far.shop.example", "tracker.example.net")
            .cname("near.shop.example", "cdn.example.net")
    );
    let tracker = world.internet().listen("203.0.113.11:7000");
    serve::banner(world.internet().listen("203.0.113.10:7000"), "cdn");
    if world.direct() {
        return;
    }
    let words = [
        "tcp",
        "far.shop.example",
        "7000",
        "near.shop.example",
        "7000",
    ];
    let out = world.python(program!("connect"), &words);
    let lines: Vec<&str> = out.ok().lines().collect();
    assert!(lines[0].starts_with("failed "), "{}", out.describe());
    assert_eq!(lines[1], "ok cdn", "{}", out.describe());
    denied_somewhere(&out, "far.shop.example", "deny-rule");
    assert_untouched(&tracker);
}
