//! A wire or a host that falls silent without closing.

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::time::Duration;

use odyn_tests::cut::Wire;
use odyn_tests::{Guest, serve};

use super::SOON;
use crate::start;

#[test]
fn a_wire_that_falls_silent_is_noticed_and_what_was_asked_is_asked_again() {
    let world = start!(super::world());
    if world.direct() {
        return;
    }
    let path = world.dir().join("wire.sock");
    let wire = Wire::new(&path, &world.link_path());
    serve::tcp(
        world.internet().listen("203.0.113.20:7000"),
        |mut stream| {
            let _ = stream.write_all(b"h");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        },
    );
    let source = r#"
import os, socket, time
def connect():
    s = socket.create_connection(("203.0.113.20", 7000), timeout=200)
    return s, s.recv(1)
old, said = connect()
print("open", flush=True)
while not os.path.exists("silent"): time.sleep(0.01)
new, said = connect()
print("new", said, flush=True)
try:
    print("old", old.recv(1), flush=True)
except OSError as error:
    print("old", type(error).__name__, flush=True)
"#;
    let mut running = Guest::python(source, &[])
        .flag("--link")
        .flag(&format!("unix://{}", path.display()))
        .limit(Duration::from_secs(200))
        .spawn(&world);
    running.process.wait_for("open", SOON);
    // Those of the pool, and not the next.
    for connection in wire.connections() {
        wire.silence(connection);
    }
    std::fs::write(world.scratch().join("silent"), "").expect("own directory");
    let out = running.finish();
    assert_eq!(
        out.ok(),
        "open\nnew b'h'\nold ConnectionResetError\n",
        "{}",
        out.describe()
    );
    let ends: Vec<&str> = out.audit.iter().map(|record| record.end.as_str()).collect();
    assert_eq!(ends.len(), 2, "{}", out.describe());
    assert!(ends.contains(&"link-lost"), "{}", out.describe());
}

#[test]
fn what_the_host_died_of_is_no_complete_stream() {
    let mut world = start!(super::world());
    if world.direct() {
        return;
    }
    let (send, ends) = channel();
    serve::tcp(
        world.internet().listen("203.0.113.20:7000"),
        move |mut stream| {
            let mut all = Vec::new();
            let _ = stream.write_all(b"h");
            let end = stream.read_to_end(&mut all).map_err(|error| error.kind());
            let _ = send.send((all, end));
        },
    );
    let source = r#"
import socket, time
s = socket.create_connection(("203.0.113.20", 7000), timeout=60)
s.recv(1)
s.sendall(b"half of it")
print("sent", flush=True)
try:
    print(s.recv(1))
except OSError as error:
    print(type(error).__name__)
"#;
    let mut running = Guest::python(source, &[]).spawn(&world);
    running.process.wait_for("sent", SOON);
    world.outer().kill();
    let (got, end) = ends.recv_timeout(SOON).expect("the stream ends");
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{got:?}");
    assert_eq!(running.finish().ok(), "sent\nConnectionResetError\n");
}
