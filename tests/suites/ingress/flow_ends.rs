//! Each direction of a client's connection ends by itself, or is reset, and leaves one record.

use std::io::{ErrorKind, Read as _, Write as _};

use odyn_tests::process::until;

use super::{ADDRESS, SOON, connect, exchange, expected, served, stop};

#[test]
fn each_direction_ends_by_itself_and_the_record_names_the_client() {
    let Some((world, running)) = served(&["after-end", "8080"]) else {
        return;
    };
    let stream = connect(&world, ADDRESS).expect("a listener");
    let client = stream.local_addr().expect("a socket").to_string();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    assert!(exchange(stream, &sent).expect("an answer") == expected(&sent));
    until(SOON, "the record", || running.audit().len() == 1);
    let record = &running.audit()[0];
    assert_eq!(record.direction, "ingress");
    assert_eq!(record.verdict, "allow");
    assert_eq!(record.protocol, "tcp");
    assert_eq!(record.client.as_deref(), Some(client.as_str()));
    assert_eq!(record.destination, "127.0.0.1:8080");
    assert_eq!(record.bytes_received, 4_000_000);
    assert_eq!(record.bytes_sent, 4_000_008);
    assert_eq!(record.end, "closed");
    stop(running);
}

#[test]
fn resets_go_both_ways() {
    let Some((world, running)) = served(&["reset", "8080"]) else {
        return;
    };
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream.write_all(b"x").expect("a connection");
    let read = stream.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
    until(SOON, "the record", || running.audit().len() == 1);
    assert_eq!(running.audit()[0].end, "reset-by-app");
    stop(running);

    let Some((world, mut running)) = served(&["hold", "8080"]) else {
        return;
    };
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    stream.write_all(b"x").expect("a connection");
    running.process.wait_for("first x", SOON);
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger)
        .expect("a socket");
    drop(stream);
    until(SOON, "the record", || running.audit().len() == 1);
    assert_eq!(running.audit()[0].end, "reset-by-peer");
    stop(running);
}

#[test]
fn a_thousand_short_connections_each_with_its_record() {
    const THREADS: usize = 20;
    const EACH: usize = 50;
    let Some((world, running)) = served(&["after-end", "8080"]) else {
        return;
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let world = &world;
            scope.spawn(move || {
                for number in 0..EACH {
                    let sent = format!("{thread} {number}").repeat(100);
                    let stream = connect(world, ADDRESS).expect("a listener");
                    let got = exchange(stream, sent.as_bytes()).expect("an answer");
                    assert!(got == expected(sent.as_bytes()));
                }
            });
        }
    });
    until(SOON, "the records", || {
        running.audit().len() == THREADS * EACH
    });
    let records = running.audit();
    assert!(records.iter().all(|record| record.end == "closed"));
    assert!(records.iter().all(|record| record.direction == "ingress"));
    stop(running);
}
