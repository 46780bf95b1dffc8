//! Many flows at once.

use std::collections::HashSet;
use std::time::Duration;

use odyn_tests::Guest;
use odyn_tests::process::until;

use crate::{program, shop, start};

const FLOWS: usize = 5_000;

#[test]
fn five_thousand_flows_at_once_each_with_its_record() {
    let mut world = start!(shop());
    let source = program!("echo_server");
    let mut server =
        world.internet_spawn("echo", &["python3", "-c", source, "203.0.113.11", "9000"]);
    server.wait_for("ready", Duration::from_secs(10));
    let count = FLOWS.to_string();
    let out = Guest::python(program!("flows"), &["v4.shop.example", "9000", &count])
        .limit(Duration::from_secs(180))
        .run(&world);
    assert_eq!(out.ok(), format!("flows {FLOWS}\n"));
    if world.direct() {
        return;
    }
    // Nothing of them stays open in the host half.
    let outer = world.outer().pid().expect("it runs");
    until(
        Duration::from_secs(20),
        "the host half to close its files",
        || std::fs::read_dir(format!("/proc/{outer}/fd")).is_ok_and(|files| files.count() < 100),
    );
    let flows = out.flows("tcp", "v4.shop.example", 9000);
    assert_eq!(flows.len(), FLOWS);
    let ids: HashSet<u64> = flows.iter().map(|flow| flow.flow).collect();
    assert_eq!(ids.len(), FLOWS, "flow ids repeat");
    let all = flows
        .iter()
        .filter(|flow| flow.end == "closed" && flow.bytes_sent >= 8);
    assert_eq!(all.count(), FLOWS);
}

#[test]
fn a_thousand_short_connections_in_a_row() {
    let world = start!(shop());
    let source = program!("echo_server");
    let mut server =
        world.internet_spawn("echo", &["python3", "-c", source, "203.0.113.11", "9000"]);
    server.wait_for("ready", Duration::from_secs(10));
    let client = "import socket, sys\n\
        for number in range(1000):\n\
        \x20   with socket.create_connection((sys.argv[1], 9000), timeout=20) as s:\n\
        \x20       s.sendall(b'a'); assert s.recv(1) == b'a'\n";
    let out = world.python(client, &["v4.shop.example"]);
    out.ok();
    if !world.direct() {
        assert_eq!(out.flows("tcp", "v4.shop.example", 9000).len(), 1000);
    }
}
