//! A name with several addresses: one that answers is found.

use odyn_tests::{World, serve, servers};

use crate::{program, shop, start};

#[test]
fn a_host_without_ipv6_reaches_a_name_that_has_both() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    world.host().ip("route del default via 2001:db8:1::1\n");
    for tool in [
        &["curl", "-sS", "-m", "20"][..],
        &["busybox", "wget", "-q", "-O", "-"],
    ] {
        let out = world.guest(&[tool, &["http://api.shop.example/whoami"]].concat());
        if world.direct() && tool[0] == "busybox" {
            continue; // It tries the first address only.
        }
        assert_eq!(out.ok(), "HTTP/1.1 api.shop.example 203.0.113.10\n");
    }
    let source = "import socket\n\
        s = socket.create_connection(('api.shop.example', 80), timeout=20)\n\
        s.sendall(b'GET /whoami HTTP/1.0\\r\\n\\r\\n')\n\
        print(s.recv(5))\n";
    assert_eq!(world.python(source, &[]).ok(), "b'HTTP/'\n");
}

#[test]
fn a_name_with_one_dead_address_reaches_the_other() {
    let world = start!(
        World::builder()
            .policy("version: v1\nname: t\negress:\n  allow:\n    - api.shop.example\n")
            .name("api.shop.example", &["203.0.113.30", "203.0.113.31"])
    );
    serve::banner(world.internet().listen("203.0.113.31:7000"), "alive");
    let words = ["tcp", "api.shop.example", "7000"];
    for _ in 0..4 {
        let out = world.python(program!("connect"), &words);
        if world.direct() {
            continue; // The probe tries one address only.
        }
        assert_eq!(out.ok(), "ok alive\n", "{}", out.describe());
        let flow = out.flow("tcp", "api.shop.example", 7000).expect("a record");
        assert_eq!(flow.dialled.as_deref(), Some("203.0.113.31:7000"));
    }
}
