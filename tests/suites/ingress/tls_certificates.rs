//! Which certificate a client gets, which it must have, and files that change.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use odyn_tests::process::until;
use odyn_tests::tls_client::{Authority, Client, Issued, Session, close_notify, read_all};
use odyn_tests::{Guest, World};

use super::tls_worlds::{Secured, certificate, policy_world, session, tls_world};
use super::{ADDRESS, SOON, app, connect, expected, stop};
use crate::{program, start};

fn presented(session: &Session, issued: &Issued) -> bool {
    let chain = session.conn.peer_certificates().expect("a handshake");
    chain.first() == Some(&issued.der())
}

#[test]
fn the_name_that_the_client_asks_for_decides() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::default();
    let first = authority.issue(&["first.example", "unknown.example"]);
    let second = authority.issue(&["*.shop.example"]);
    let (a, b) = (first.write(dir.path(), "a"), second.write(dir.path(), "b"));
    let list = [a, b].map(|(cert, key)| {
        format!(
            "{{ cert_file: {}, key_file: {} }}",
            cert.display(),
            key.display()
        )
    });
    let keys = format!(
        "tls: {{ certificates: [{}], alpn: [h2, http/1.1] }}",
        list.join(", ")
    );
    let mut world = start!(policy_world(&keys));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    assert!(presented(
        &session(&world, &authority, "first.example"),
        &first
    ));
    assert!(presented(
        &session(&world, &authority, "www.shop.example"),
        &second
    ));
    // No certificate is for it by its name: the first one, which says that it is.
    assert!(presented(
        &session(&world, &authority, "unknown.example"),
        &first
    ));
    for (offered, agreed) in [
        (vec![b"http/1.1".to_vec(), b"h2".to_vec()], Some(&b"h2"[..])),
        (vec![b"http/1.1".to_vec()], Some(b"http/1.1")),
        (vec![], None),
    ] {
        let client = Client {
            alpn: offered,
            ..Client::default()
        };
        let socket = connect(&world, ADDRESS).expect("a listener");
        let session = client.connect(socket, &authority, "first.example");
        let session = session.expect("a handshake");
        assert_eq!(session.conn.alpn_protocol(), agreed);
    }
    stop(running);
}

#[test]
fn files_that_change_hold_for_new_clients_and_those_that_are_there_stay() {
    let Some(secured) = Secured::start("", &["after-end", "8080"]) else {
        return;
    };
    let old = &secured.issued;
    let mut early = secured.session();
    early.write_all(b"early ").expect("a connection");
    assert!(presented(&early, old));

    let new = secured.authority.issue(&["shop.example"]);
    // First the one, then the other, as it happens: between the two, they don't fit together.
    fs::write(secured.dir.path().join("a.pem"), &new.cert).expect("own directory");
    until(SOON, "a word about it", || {
        let _ = secured.session();
        secured
            .world
            .guest_log()
            .contains("is not the key of the certificate in")
    });
    assert!(presented(&secured.session(), old));
    fs::write(secured.dir.path().join("a.key"), &new.key).expect("own directory");
    until(SOON, "the new certificate", || {
        presented(&secured.session(), &new)
    });
    early.write_all(b"late").expect("a connection");
    close_notify(&mut early).expect("a connection");
    assert_eq!(
        read_all(&mut early).expect("an answer"),
        expected(b"early late")
    );
    stop(secured.running);
}

/// The answer of the app to a client with this certificate, if any.
fn answer(world: &World, authority: &Authority, own: Option<&Issued>) -> std::io::Result<Vec<u8>> {
    let client = Client {
        own: own.cloned(),
        ..Client::default()
    };
    let socket = connect(world, ADDRESS).expect("a listener");
    let mut session = client.connect(socket, authority, "shop.example")?;
    // In TLS 1.3 the client is ready before the server has seen its certificate.
    session.write_all(b"hello")?;
    close_notify(&mut session)?;
    read_all(&mut session)
}

#[test]
fn clients_have_a_certificate_of_the_right_authority_where_they_must() {
    let dir = tempfile::tempdir().expect("a directory");
    let (authority, _) = certificate(dir.path());
    let (staff, strangers) = (Authority::default(), Authority::default());
    fs::write(dir.path().join("ca.pem"), &staff.pem).expect("own directory");
    let (known, unknown) = (staff.issue(&["ann"]), strangers.issue(&["eve"]));
    let ca = format!(", client_ca_file: {}/ca.pem", dir.path().display());
    for (more, without) in [("", false), (", client_certificates: optional", true)] {
        let mut world = start!(tls_world(dir.path(), &format!("{ca}{more}")));
        if world.direct() {
            return;
        }
        let running = app(&mut world, &["after-end", "8080"]);
        let said = answer(&world, &authority, Some(&known)).expect("an answer");
        assert_eq!(said, expected(b"hello"));
        assert!(answer(&world, &authority, Some(&unknown)).is_err());
        assert_eq!(answer(&world, &authority, None).is_ok(), without);
        stop(running);
    }
}

/// The message of odyn-net when it does not start.
fn refused(dir: &Path) -> Option<String> {
    let world = tls_world(dir, "").start()?;
    if world.direct() {
        return None;
    }
    let out = Guest::python(program!("app"), &["hold", "8080"]).run(&world);
    assert_eq!(out.code, 72, "{}", out.describe());
    assert!(!out.stdout.contains("ready"), "{}", out.describe());
    Some(out.stderr)
}

#[test]
fn wrong_files_start_nothing_and_are_named_with_their_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(said) = refused(dir.path()) else {
        return;
    };
    let file = dir.path().join("a.pem").display().to_string();
    for words in [
        &format!("{file}: can't be read: No such file"),
        "error[tls-file]",
        ":6:23",
        "put the file into the image, or correct the path",
        "a.key: can't be read",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (authority, _) = certificate(dir.path());
    let other = authority.issue(&["shop.example"]);
    fs::write(dir.path().join("a.key"), &other.key).expect("own directory");
    let said = refused(dir.path()).expect("root");
    assert!(
        said.contains("is not the key of the certificate in"),
        "{said}"
    );
    let secret = other.key.lines().nth(1).expect("a key");
    assert!(!said.contains(secret), "the key is in the log");
}

#[test]
fn a_silent_client_is_given_up() {
    let Some(secured) = Secured::start("", &["hold", "8080"]) else {
        return;
    };
    let mut socket = connect(&secured.world, ADDRESS).expect("a listener");
    let end = socket.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    until(SOON, "the record", || secured.running.audit().len() == 1);
    assert_eq!(secured.running.audit()[0].end, "tls-failed");
    stop(secured.running);
}
