//! Either half is killed, or comes late, and the other goes on.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::process::until;
use odyn_tests::{Guest, ethernet, process, serve};

use crate::{program, shop, skipped_by_tun, start};

#[test]
fn the_host_may_be_killed_and_started_again() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    let listener = world.internet().listen("203.0.113.11:7000");
    serve::tcp(listener, |mut stream| {
        use std::io::{Read as _, Write as _};
        let _ = stream.write_all(b"hello");
        let _ = stream.read(&mut [0; 1]);
    });
    let source = r#"
import os, socket, sys, time
def connect():
    s = socket.create_connection((sys.argv[1], 7000), timeout=10)
    s.settimeout(10)
    said = s.recv(10)
    if said != b"hello": raise OSError("said " + repr(said))
    return s
s = connect()
print("first", flush=True)
try:
    print("in the air: read", s.recv(1), flush=True)
except TimeoutError:
    print("in the air: hung", flush=True)
except OSError as error:
    print("in the air: failed", flush=True)
while not os.path.exists("go"): time.sleep(0.01)
for attempt in range(200):
    try:
        connect()
        print("again", flush=True)
        break
    except OSError as error:
        time.sleep(0.05)
"#;
    let mut running = Guest::python(source, &["v4.shop.example"]).spawn(&world);
    running.process.wait_for("first", Duration::from_secs(20));
    world.outer().kill();
    running
        .process
        .wait_for("in the air", Duration::from_secs(20));
    world.start_outer();
    fs::write(world.scratch().join("go"), "").expect("own directory");
    running.process.wait_for("again", Duration::from_secs(20));
    let out = running.finish();
    assert!(!out.ok().contains("hung"), "{}", out.describe());
    assert!(
        out.audit.iter().any(|record| record.end == "link-lost"),
        "{}",
        out.describe()
    );
}

#[test]
fn a_guest_may_start_before_its_host() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    world.outer().kill();
    let source = r#"
import socket, time
print("started", flush=True)
for attempt in range(400):
    try:
        with socket.create_connection(("203.0.113.20", 7000), timeout=10) as s:
            if s.recv(10):
                print("connected", flush=True)
                break
    except OSError:
        pass
    time.sleep(0.02)
"#;
    let running = Guest::python(source, &[]).spawn(&world);
    world.start_outer();
    let out = running.finish();
    assert_eq!(out.ok(), "started\nconnected\n", "{}", out.describe());
}

#[test]
fn odyn_net_runs_again_in_a_namespace_where_it_was_killed() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    // The first run is killed with its app in the middle; the second
    // finds its rules, routes and addresses there.
    let odyn = odyn_tests::world::executable("ODYN_NET", "odyn-net");
    let prelude = format!(
        "{} run --policy {} --link {} -- sh -c 'echo $PPID >first; exec sleep 60' & first=$!\n\
         while [ ! -s first ]; do sleep 0.02; done\n\
         kill -KILL $first; wait $first || true",
        odyn.display(),
        world.policy_file().display(),
        world.link_url()
    );
    let out = Guest::python(
        program!("connect"),
        &["tcp", "203.0.113.20", "7000", "203.0.113.66", "7000"],
    )
    .prelude(&prelude)
    .run(&world);
    let lines: Vec<&str> = out.ok().lines().collect();
    assert_eq!(lines[0], "ok hello", "{}", out.describe());
    assert!(lines[1].starts_with("failed E"), "{}", out.describe());
}

#[test]
fn what_odyn_net_leaves_when_killed_lets_nothing_out() {
    let world = start!(shop());
    if world.direct() || skipped_by_tun("the guest has another interface") {
        return;
    }
    // If the app outlives odyn-net, it goes on trying, with a real network
    // in its reach.
    let source = r#"
import os, socket
attempts = 0
while True:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for host in ("203.0.113.66", "203.0.113.20", "192.0.2.201"):
            try:
                with socket.socket(socket.AF_INET, kind) as s:
                    s.settimeout(0.2)
                    s.connect((host, 7000))
                    s.send(b"leak")
                    s.recv(1)
            except OSError:
                pass
    attempts += 1
    with open("attempts", "w") as f: f.write(str(attempts))
"#;
    let file = world.scratch().join("attempts");
    let attempts = || -> u32 {
        fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    let running = Guest::python(source, &[])
        .prelude(&ethernet::prelude(&world))
        .spawn(&world);
    until(Duration::from_secs(20), "the app to try", || attempts() > 2);
    let odyn = running.process.pid().expect("it runs");
    // The neighbour's processes are older children of the same process.
    let app = process::children(odyn).pop().expect("it has an app");
    running.process.signal(Signal::SIGKILL);
    let seen = attempts();
    until(
        Duration::from_secs(20),
        "the app to end or to try again",
        || process::is_gone(app) || attempts() > seen + 3,
    );
    assert_eq!(ethernet::leaks(&world), "", "packets left");
    assert_eq!(running.finish().code, 137);
}
