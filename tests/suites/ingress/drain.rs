//! The end of the app, the guest or the host: what was written arrives, and cut clients are reported.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::Guest;
use odyn_tests::guest::Running;
use odyn_tests::process::until;

use super::{
    ADDRESS, MAPPING, SOON, connect, exchange, expected, listening, outer_says, served, stop, world,
};
use crate::{program, start};

#[test]
fn a_host_that_is_told_to_stop_takes_no_client_and_ends_none() {
    let Some((mut world, running)) = served(&["after-end", "8080"]) else {
        return;
    };
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream.write_all(b"before ").expect("a connection");
    outer_says(&mut world, &["client connected"]);
    world.outer().signal(Signal::SIGTERM);
    until(SOON, "the listener's end", || {
        connect(&world, ADDRESS).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    let got = exchange(stream, b"after").expect("an answer");
    assert_eq!(got, expected(b"before after"));
    let status = world.outer().wait(SOON);
    assert!(status.success(), "{status}");
    stop(running);
}

#[test]
fn a_response_whose_app_has_exited_arrives_whole() {
    const SIZE: usize = 256 << 20;
    let Some((mut world, running)) = served(&["one", "8080", &SIZE.to_string()]) else {
        return;
    };
    let back = world.dir().join("back").display().to_string();
    let url = format!("http://{ADDRESS}/");
    let mut curl = world.internet_spawn(
        "curl",
        &["curl", "-sSf", "--limit-rate", "20M", "-o", &back, &url],
    );
    let out = running.finish();
    // What is delivered needs no guest any more.
    world.outer().kill();
    assert_eq!(out.code, 7, "{}", out.describe());
    let status = curl.wait(SOON);
    assert!(
        status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&curl.stderr()),
        out.describe()
    );
    let block: Vec<u8> = (0..65536_u32).map(|at| (at * 31) as u8).collect();
    let got = std::fs::read(&back).expect("a file");
    assert_eq!(got.len(), SIZE);
    assert!(got.chunks(65536).all(|chunk| chunk == block));
    assert_eq!(out.audit.len(), 1);
    assert_eq!(out.audit[0].end, "closed");
}

/// Asserts that a client of an app that exits gets an answer of more than so many bytes and its end, and
/// that odyn-net ends then.
fn gets_all(stream: &mut TcpStream, size: usize, running: Running) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    assert!(all.len() > size);
    let out = running.finish();
    assert_eq!(out.code, 7, "{}", out.describe());
    assert_eq!(out.audit[0].end, "closed");
}

#[test]
fn odyn_net_ends_only_when_a_slow_client_has_everything() {
    // Fits into the host, and not into the client.
    const SIZE: usize = 448 << 10;
    let Some((world, mut running)) = served(&["one", "8080", &SIZE.to_string()]) else {
        return;
    };
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::RcvBuf, &(16 << 10))
        .expect("a size");
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("a connection");
    until(SOON, "the question whether all is delivered", || {
        world.guest_log().contains("phase=Flushing")
    });
    // With nothing to wait for it ends in milliseconds.
    std::thread::sleep(Duration::from_secs(1));
    assert!(running.process.ended().is_none(), "it did not wait");
    gets_all(&mut stream, SIZE, running);
}

#[test]
fn a_client_that_never_closes_does_not_hold_the_exit() {
    const SIZE: usize = 1 << 20;
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = Guest::python(program!("app"), &["one", "8080", &SIZE.to_string()])
        .flag("--drain-timeout")
        .flag("10min")
        .spawn(&world);
    listening(&mut world, MAPPING);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("a connection");
    // The limit of a run is far below that of the drain.
    gets_all(&mut stream, SIZE, running);
}

#[test]
fn a_client_that_never_reads_is_reported_at_the_deadline() {
    const SIZE: usize = 64 << 20;
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let source = "import socket, os, threading\n\
        s = socket.create_server(('127.0.0.1', 8080))\n\
        c, _ = s.accept()\n\
        c.setblocking(False)\n\
        c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)\n\
        import time\n\
        sent = 0\n\
        idle = 0\n\
        while idle < 20:\n\
        \x20   try:\n\
        \x20       sent += c.send(b'x' * 65536)\n\
        \x20       idle = 0\n\
        \x20   except BlockingIOError:\n\
        \x20       idle += 1\n\
        \x20       time.sleep(0.05)\n\
        print(sent, flush=True)\n\
        os._exit(7)\n";
    let running = Guest::python(source, &[])
        .flag("--drain-timeout")
        .flag("2s")
        .spawn(&world);
    listening(&mut world, MAPPING);
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    let out = running.finish();
    assert_eq!(out.code, 7, "{}", out.describe());
    let written: u64 = out.stdout.trim().parse().expect("a number");
    assert!(written < SIZE as u64, "{}", out.describe());
    let record = &out.audit[0];
    assert_eq!(record.end, "cut", "{}", out.describe());
    assert!(record.bytes_undelivered > Some(0), "{}", out.describe());
    // Half of a response must not look like all of it.
    let read = std::io::copy(&mut stream, &mut std::io::sink()).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
}
