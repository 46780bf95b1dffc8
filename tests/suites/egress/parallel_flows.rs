//! Many flows at once.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use odyn_tests::process::until;
use odyn_tests::{Guest, serve, servers};

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
    // Nothing of them stays open in the host.
    let outer = world.outer().pid().expect("it runs");
    until(
        Duration::from_secs(20),
        "the host to close its files",
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

#[test]
fn both_directions_of_a_flow_are_busy_at_once() {
    let world = start!(shop());
    serve::tcp(world.internet().listen("203.0.113.11:9000"), |stream| {
        let mut reading = stream.try_clone().expect("a socket");
        let mut writing = stream;
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = reading.read(&mut buffer) {
            if writing.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    });
    let source = r#"
import hashlib, os, socket, sys, threading
s = socket.create_connection((sys.argv[1], 9000))
block = os.urandom(1 << 20)
def write():
    for _ in range(100): s.sendall(block)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=write).start()
sent, got, total = hashlib.sha256(), hashlib.sha256(), 0
for _ in range(100): sent.update(block)
while part := s.recv(1 << 16):
    got.update(part)
    total += len(part)
print(total, sent.digest() == got.digest())
"#;
    let out = world.python(source, &["v4.shop.example"]);
    assert_eq!(out.ok(), "104857600 True\n");
}

#[test]
fn sixteen_transfers_side_by_side() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let body: Vec<u8> = (0..40_000_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(servers::www(&world).join("body"), body).expect("own file");
    let out = Guest::sh(
        "for n in $(seq 16); do \
           (curl -sS https://v4.shop.example/body | sha256sum >sum$n) & \
         done; wait; sort -u sum* | wc -l; ls sum* | wc -l; sha256sum <\"$0\" | cmp - sum1 && echo same",
    );
    let path = servers::www(&world).join("body").display().to_string();
    let out = out.word(&path).run(&world);
    assert_eq!(out.ok(), "1\n16\nsame\n");
    if !world.direct() {
        assert_eq!(out.flows("tcp", "v4.shop.example", 443).len(), 16);
    }
}

#[test]
fn a_server_farm_of_clients_at_once() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let out = Guest::sh(
        "for n in 1 2 3 4 5 6 7 8; do \
           curl -sS https://api.shop.example/whoami >out$n & \
           dig +short +time=5 v4.shop.example >dig$n & \
         done; wait; cat out* | wc -l; cat dig* | wc -l",
    )
    .run(&world);
    let counts: Vec<&str> = out.ok().split_whitespace().collect();
    assert_eq!(counts, ["8", "8"], "{}", out.describe());
    if !world.direct() {
        assert_eq!(out.flows("tcp", "api.shop.example", 443).len(), 8);
    }
}
