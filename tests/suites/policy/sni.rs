//! `sni: required`: a rule that wants the name in the TLS ClientHello, too.

use odyn_tests::{World, servers};

use crate::start;

fn world() -> odyn_tests::world::Builder {
    let policy = "\
version: v1
name: t
egress:
  allow:
    - to: api.shop.example
      ports: [443]
      protocol: tcp
      sni: required
";
    World::builder()
        .policy(policy)
        .name("api.shop.example", &["203.0.113.10"])
}

#[test]
fn the_name_in_the_client_hello_lets_pass() {
    let world = start!(world());
    let _nginx = servers::nginx(&world);
    let out = world.guest(&["curl", "-sS", "https://api.shop.example/whoami"]);
    assert_eq!(out.ok(), "HTTP/2.0 api.shop.example 203.0.113.10\n");
    out.allowed("tcp", "api.shop.example", 443, "api.shop.example");
}

#[test]
fn another_name_in_the_client_hello_does_not() {
    let world = start!(world());
    let _nginx = servers::nginx(&world);
    let fronted = "https://www.shop.example/whoami";
    let connect = "www.shop.example:443:api.shop.example:443";
    let out = world.guest(&["curl", "-sS", "-m", "20", "--connect-to", connect, fronted]);
    if world.direct() {
        out.ok();
        return;
    }
    assert_ne!(out.failed().code, 28, "a time-out is no honest denial");
    let record = out.flow("tcp", "api.shop.example", 443).expect("a record");
    assert_eq!(record.verdict, "deny", "{}", out.describe());
    assert_eq!(record.reason.as_deref(), Some("sni"), "{}", out.describe());
}

#[test]
fn what_is_not_tls_does_not_either() {
    let world = start!(world());
    let _nginx = servers::nginx(&world);
    let plain = [
        "curl",
        "-sS",
        "-m",
        "20",
        "http://api.shop.example:443/whoami",
    ];
    let out = world.guest(&plain);
    if world.direct() {
        return;
    }
    assert_ne!(out.failed().code, 28, "a time-out is no honest denial");
    let record = out.flow("tcp", "api.shop.example", 443).expect("a record");
    assert_eq!(record.reason.as_deref(), Some("sni"), "{}", out.describe());
}
