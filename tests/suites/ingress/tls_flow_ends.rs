//! TLS that ends in the guest: every end and reset is what it is without TLS.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;

use nix::sys::socket::{setsockopt, sockopt};
use odyn_tests::process::until;
use odyn_tests::tls_client::{Client, close_notify, read_all};

use super::tls_worlds::Secured;
use super::{ADDRESS, SOON, connect, expected, stop};

#[test]
fn each_direction_ends_by_itself() {
    let Some(secured) = Secured::start("", &["after-end", "8080"]) else {
        return;
    };
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    for old in [false, true] {
        let client = Client {
            old,
            ..Client::default()
        };
        let socket = connect(&secured.world, ADDRESS).expect("a listener");
        let mut session = client
            .connect(socket, &secured.authority, "shop.example")
            .expect("a handshake");
        session.write_all(&sent).expect("an app that reads");
        close_notify(&mut session).expect("a connection");
        // The app answers what it got up to the end, and its own end is a proper one.
        assert!(read_all(&mut session).expect("an answer") == expected(&sent));
    }
    until(SOON, "the records", || secured.running.audit().len() == 2);
    for record in secured.running.audit() {
        assert_eq!(record.end, "closed");
        assert_eq!(record.direction, "ingress");
        // Ciphertext.
        assert!(record.bytes_received > 3_000_000 && record.bytes_sent > 3_000_008);
    }
    stop(secured.running);
}

#[test]
fn what_is_cut_off_does_not_look_like_an_end() {
    let Some(mut secured) = Secured::start("", &["hold", "8080"]) else {
        return;
    };
    let mut session = secured.session();
    session.write_all(b"x").expect("a connection");
    secured.running.process.wait_for("first x", SOON);
    // As an attacker on the way would do it: the FIN is not protected by TLS.
    session.sock.shutdown(Shutdown::Write).expect("a socket");
    let end = session.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    until(SOON, "the record", || secured.running.audit().len() == 1);
    assert_eq!(secured.running.audit()[0].end, "truncated");
    until(SOON, "the app's word", || {
        String::from_utf8_lossy(&secured.running.process.stderr()).contains("ConnectionResetError")
    });
    let out = stop(secured.running);
    assert!(!out.stdout.contains("end"), "{}", out.describe());
}

#[test]
fn resets_go_both_ways() {
    let Some(secured) = Secured::start("", &["reset", "8080"]) else {
        return;
    };
    let mut session = secured.session();
    session.write_all(b"x").expect("a connection");
    let end = session.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    until(SOON, "the record", || secured.running.audit().len() == 1);
    assert_eq!(secured.running.audit()[0].end, "reset-by-app");
    stop(secured.running);

    let Some(mut secured) = Secured::start("", &["hold", "8080"]) else {
        return;
    };
    let mut session = secured.session();
    session.write_all(b"x").expect("a connection");
    secured.running.process.wait_for("first x", SOON);
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&session.sock, sockopt::Linger, &linger).expect("a socket");
    drop(session);
    until(SOON, "the record", || secured.running.audit().len() == 1);
    assert_eq!(secured.running.audit()[0].end, "reset-by-peer");
    until(SOON, "the app's word", || {
        String::from_utf8_lossy(&secured.running.process.stderr()).contains("ConnectionResetError")
    });
    stop(secured.running);
}

#[test]
fn a_response_whose_app_has_exited_arrives_whole_and_with_its_end() {
    const SIZE: usize = 24 << 20;
    let Some(mut secured) = Secured::start("", &["one", "8080", &SIZE.to_string()]) else {
        return;
    };
    let socket = connect(&secured.world, ADDRESS).expect("a listener");
    setsockopt(&socket, sockopt::RcvBuf, &(64 << 10)).expect("a socket");
    let mut session = Client::default()
        .connect(socket, &secured.authority, "shop.example")
        .expect("a handshake");
    session
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("a connection");
    let mut got = vec![0; 1 << 20];
    session.read_exact(&mut got).expect("a response");
    assert!(
        secured.running.process.ended().is_none(),
        "not all is delivered"
    );
    got.extend(read_all(&mut session).expect("an end with close_notify"));
    let out = secured.running.finish();
    assert_eq!(out.code, 7, "{}", out.describe());
    let block: Vec<u8> = (0..65536_u32).map(|at| (at * 31) as u8).collect();
    let head = got.windows(4).position(|four| four == b"\r\n\r\n");
    let body = &got[head.expect("a head") + 4..];
    assert_eq!(body.len(), SIZE);
    assert!(body.chunks(65536).all(|chunk| chunk == block));
    assert_eq!(out.audit.len(), 1);
    assert_eq!(out.audit[0].end, "closed");
}

#[test]
fn who_speaks_no_tls_is_told_so_and_never_reaches_the_app() {
    let Some(secured) = Secured::start("", &["hold", "8080"]) else {
        return;
    };
    let mut socket = connect(&secured.world, ADDRESS).expect("a listener");
    socket
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("a connection");
    let mut got = Vec::new();
    let end = socket.read_to_end(&mut got).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    assert_eq!(got.first(), Some(&21), "an alert comes before the reset");
    until(SOON, "the record", || secured.running.audit().len() == 1);
    let record = &secured.running.audit()[0];
    assert_eq!(record.end, "tls-failed");
    assert_eq!(record.dialled, None);
    let out = stop(secured.running);
    assert!(!out.stdout.contains("first"), "{}", out.describe());
}
