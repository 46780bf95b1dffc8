//! Which listener reaches which guest, and mappings that change.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use odyn_tests::World;
use odyn_tests::process::until;

use super::tls_worlds::policy_world;
use super::{ADDRESS, MAPPING, SOON, app, connect, exchange, expected, stop};
use crate::start;

const READY: &str = "192.0.2.2:9100";

/// Status and body of an answer.
fn ready(world: &World) -> (String, serde_json::Value) {
    let mut stream = world.internet().enter(|| {
        let address = READY.parse().expect("an address");
        TcpStream::connect_timeout(&address, SOON).expect("it listens")
    });
    let request = "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a connection");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").to_owned();
    (status, serde_json::from_str(body).expect("JSON"))
}

#[test]
fn it_says_which_listener_reaches_which_guest() {
    let words = ["--ready-listen", READY];
    let mut world = start!(policy_world("").outer(&words));
    if world.direct() {
        return;
    }
    let (status, body) = ready(&world);
    assert_eq!(status, "503", "{body}");
    assert_eq!(body["listeners"][0]["state"], "no-guest");
    let running = app(&mut world, &["hold", "8080"]);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream.write_all(b"x").expect("a connection");
    until(SOON, "the client", || {
        ready(&world).1["listeners"][0]["clients"] == 1
    });
    let (status, body) = ready(&world);
    assert_eq!(status, "200", "{body}");
    assert_eq!(body["ready"], true);
    let listener = &body["listeners"][0];
    assert_eq!(listener["mapping"], MAPPING);
    assert_eq!(listener["state"], "ready");
    assert!(
        listener["guest"]
            .as_str()
            .is_some_and(|guest| guest.starts_with("shop"))
    );
    stop(running);
    until(SOON, "its end", || ready(&world).0 == "503");
}

#[test]
fn mappings_change_at_a_reload_and_no_client_is_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("outer.yaml");
    let set = |mappings: &str| fs::write(&file, format!("ingress: [{mappings}]\n"));
    set(&format!("'{MAPPING}'")).expect("own directory");
    let path = file.display().to_string();
    // The mapping is in the file only: a flag would be stronger.
    let builder = World::builder()
        .policy("version: v1\nname: shop\ningress:\n  - listen_port: 80\n    target_port: 8080\n");
    let mut world = start!(builder.outer(&["--config", &path]));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    let early = connect(&world, ADDRESS).expect("a listener");
    set("'80=192.0.2.2:8001'").expect("own directory");
    world.outer().signal(Signal::SIGHUP);
    until(SOON, "the new listener", || {
        connect(&world, "192.0.2.2:8001").is_ok()
    });
    until(SOON, "the end of the old one", || {
        connect(&world, ADDRESS).is_err()
    });
    let late = connect(&world, "192.0.2.2:8001").expect("a listener");
    for stream in [early, late] {
        let got = exchange(stream, b"hello").expect("an answer");
        assert_eq!(got, expected(b"hello"));
    }
    stop(running);
}
