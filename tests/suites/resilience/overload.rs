//! An app that does too much of something: others, and itself later, are
//! served as before.

use std::collections::HashSet;

use odyn_tests::{Guest, World, serve};

use crate::{program, shop, start};

/// Asserts, after a flood, that a name and a flow work.
const AFTER: &str = r#"
import socket
with socket.create_connection(("v4.shop.example", 7000), timeout=10) as s:
    print("after", s.recv(10))
"#;

#[track_caller]
fn flood(world: &World, source: &str) -> odyn_tests::Output {
    serve::banner(world.internet().listen("203.0.113.11:7000"), "hello");
    let out = Guest::python(&format!("{source}\n{AFTER}"), &[]).run(world);
    assert!(
        out.ok().ends_with("after b'hello\\n'\n"),
        "{}",
        out.describe()
    );
    out
}

#[test]
fn ten_thousand_denied_connections() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let out = flood(
        &world,
        r#"
import socket
for number in range(10000):
    s = socket.socket()
    try:
        s.connect(("203.0.113.66", 1000 + number))
    except OSError:
        pass
    s.close()
"#,
    );
    let denied: HashSet<u64> = out
        .audit
        .iter()
        .filter(|record| record.verdict == "deny" && record.protocol == "tcp")
        .map(|record| record.flow)
        .collect();
    assert_eq!(denied.len(), 10_000, "each has its record");
}

#[test]
fn two_thousand_udp_flows_at_once() {
    let world = start!(shop());
    serve::udp_echo(world.internet().udp("203.0.113.20:7"));
    let out = flood(
        &world,
        r#"
import socket
sockets = []
for number in range(2000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.connect(("203.0.113.20", 7))
    sockets.append(s)
def ask(s, number):
    for attempt in range(4):
        s.send(b"%d" % number)
        try:
            if s.recv(100) == b"%d" % number: return
        except TimeoutError:
            pass
    raise SystemExit(f"no answer for {number}")
for round in range(2):
    for number, s in enumerate(sockets): ask(s, number)
"#,
    );
    if !world.direct() {
        assert_eq!(out.flows("udp", "203.0.113.20", 7).len(), 2000);
    }
}

#[test]
fn thousands_of_names() {
    let policy = "\
version: v1
name: t
egress:
  allow:
    - \"*.many.shop.example\"
    - v4.shop.example
";
    let mut builder = World::builder()
        .policy(policy)
        .name("v4.shop.example", &["203.0.113.11"]);
    for number in 0..3000 {
        builder = builder.name(&format!("n{number}.many.shop.example"), &["203.0.113.10"]);
    }
    let world = start!(builder);
    let out = flood(
        &world,
        r#"
import socket
seen = set()
for number in range(3000):
    name = f"n{number}.many.shop.example"
    seen.add(socket.getaddrinfo(name, 1, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
print("addresses", len(seen))
"#,
    );
    let want = if world.direct() {
        "addresses 1\n"
    } else {
        "addresses 3000\n"
    };
    assert!(out.stdout.starts_with(want), "{}", out.stdout);
}

#[test]
fn garbage_at_the_resolver() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    flood(
        &world,
        r#"
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for size in list(range(0, 100)) + [511, 512, 513, 4096, 65507]:
    try:
        s.sendto(os.urandom(size), ("192.0.2.53", 53))
    except OSError:
        pass
# A header of a query, and then garbage.
for size in range(0, 300, 7):
    try:
        s.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + os.urandom(size), ("192.0.2.53", 53))
    except OSError:
        pass
stalled = []
for number in range(300):
    t = socket.socket()
    t.settimeout(5)
    try:
        t.connect(("192.0.2.53", 53))
        t.send(b"\xff" if number % 2 else os.urandom(50))
    except OSError:
        pass
    stalled.append(t)
"#,
    );
}

#[test]
fn strange_names_leave_readable_records() {
    let world = start!(shop());
    let script = r#"
dig +tries=1 +time=5 'a"b.example.net' A
dig +tries=1 +time=5 'a\010b.example.net' A
dig +tries=1 +time=5 'a\\b\000.example.net' A
dig +tries=1 +time=5 'xn--zzzz--.example.net' A
dig +tries=1 +time=5 '\255\254.example.net' A
dig +tries=1 +time=5 . NS
dig +tries=1 +time=5 '*.shop.example' A
dig +tries=1 +time=5 v4.shop.example ANY
dig +tries=1 +time=5 v4.shop.example CH A
true"#;
    let out = Guest::sh(script).run(&world);
    out.ok();
    if world.direct() {
        return;
    }
    // Reading the records has parsed each line of the file.
    assert!(out.audit.len() >= 6, "{}", out.describe());
    assert!(
        !world.dns_log().contains("example.net"),
        "a strange name crossed the link"
    );
    let words = ["tcp", "v4.shop.example", "1"];
    world.python(program!("connect"), &words).ok();
}
