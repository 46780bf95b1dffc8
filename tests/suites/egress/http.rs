//! HTTP by unmodified clients.

use std::net::SocketAddr;

use odyn_tests::{Guest, servers};

use crate::{program, shop, start};

#[test]
fn curl_speaks_http1_and_http2_over_tls() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    for (flag, protocol) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let out = world.guest(&["curl", "-sS", flag, "https://v4.shop.example/whoami"]);
        assert_eq!(
            out.ok(),
            format!("{protocol} v4.shop.example 203.0.113.11\n")
        );
        out.allowed("tcp", "v4.shop.example", 443, "v4.shop.example");
        if let Some(flow) = out.flow("tcp", "v4.shop.example", 443) {
            assert_eq!(flow.dialled.as_deref(), Some("203.0.113.11:443"));
            assert_eq!(flow.line, Some(6));
            assert_eq!(flow.end, "closed", "{}", out.describe());
            assert!(flow.bytes_sent > 300 && flow.bytes_received > 500);
        }
    }
}

#[test]
fn curl_speaks_ipv4_and_ipv6_to_names_and_to_addresses() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    for (url, who, dialled) in [
        (
            "http://v4.shop.example/whoami",
            "v4.shop.example",
            "203.0.113.11:80",
        ),
        (
            "http://v6.shop.example/whoami",
            "v6.shop.example",
            "[2001:db8::11]:80",
        ),
        (
            "http://203.0.113.20/whoami",
            "203.0.113.20",
            "203.0.113.20:80",
        ),
        (
            "http://[2001:db8::12]/whoami",
            "2001:db8::12",
            "[2001:db8::12]:80",
        ),
    ] {
        let out = world.guest(&["curl", "-sS", "-g", url]);
        let dialled_to: SocketAddr = dialled.parse().expect("an address and a port");
        let answer = out.ok().to_owned();
        assert!(
            answer.ends_with(&format!(" {}\n", dialled_to.ip())),
            "{answer}"
        );
        out.allowed("tcp", who, 80, who);
        if let Some(flow) = out.flow("tcp", who, 80) {
            assert_eq!(flow.dialled.as_deref(), Some(dialled), "{}", out.describe());
        }
    }
}

#[test]
fn either_family_of_a_name_with_both_works() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    for flag in ["-4", "-6"] {
        let out = world.guest(&["curl", "-sS", flag, "https://api.shop.example/whoami"]);
        assert!(out.ok().starts_with("HTTP/2.0 api.shop.example "));
        out.allowed("tcp", "api.shop.example", 443, "api.shop.example");
    }
}

#[test]
fn a_name_that_is_not_allowed_fails_fast_with_its_record() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let out = world.guest(&["curl", "-sS", "-m", "20", "http://evil.example.net/whoami"]);
    if world.direct() {
        out.ok();
        return;
    }
    // 6: curl could not resolve the host.
    assert_eq!(out.code, 6, "{}", out.describe());
    out.dns_denied("evil.example.net", "no-rule");
    assert!(
        !world.dns_log().contains("evil"),
        "the query crossed the link"
    );
}

#[test]
fn python_requests_keeps_a_session() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let url = "https://api.shop.example/whoami";
    let out = Guest::python(program!("https_requests"), &[url]).run(&world);
    assert_eq!(out.ok().matches("HTTP/1.1 api.shop.example").count(), 2);
    out.allowed("tcp", "api.shop.example", 443, "api.shop.example");
}

#[test]
fn busybox_without_a_libc_resolver_works() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let out = world.guest(&[
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://v4.shop.example/whoami",
    ]);
    assert_eq!(out.ok(), "HTTP/1.1 v4.shop.example 203.0.113.11\n");
    out.allowed("tcp", "v4.shop.example", 80, "v4.shop.example");
    let out = world.guest(&[
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://evil.example.net/whoami",
    ]);
    if !world.direct() {
        out.failed().dns_denied("evil.example.net", "no-rule");
    }
}
