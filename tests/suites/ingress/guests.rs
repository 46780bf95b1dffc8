//! Which guest gets the clients of which port, when it is late, when it is gone, when the link is.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use odyn_tests::cut::Wire;
use odyn_tests::guest::Running;
use odyn_tests::process::until;
use odyn_tests::{Guest, World};

use super::{
    ADDRESS, MAPPING, SOON, app, connect, exchange, expected, listening, outer_log, outer_says,
    policy, served, stop, world,
};
use crate::{program, start};

#[test]
fn a_client_waits_for_an_app_that_listens_late() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let go = world.scratch().join("go");
    let script = "while [ ! -e go ]; do sleep 0.05; done; exec python3 -c \"$0\" after-end 8080";
    let running = Guest::new(&["sh", "-c", script, program!("app")]).spawn(&world);
    listening(&mut world, MAPPING);
    let streams: Vec<TcpStream> = (0..20)
        .map(|_| connect(&world, ADDRESS).expect("a listener"))
        .collect();
    std::fs::write(&go, "").expect("own directory");
    for stream in streams {
        let got = exchange(stream, b"patience").expect("an answer");
        assert_eq!(got, expected(b"patience"));
    }
    stop(running);
}

#[test]
fn a_client_of_an_app_that_never_listens_is_reset() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let running = Guest::new(&["sleep", "infinity"]).spawn(&world);
    listening(&mut world, MAPPING);
    let start = Instant::now();
    let mut stream = connect(&world, ADDRESS).expect("a listener");
    let read = stream.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
    assert!(
        start.elapsed() > Duration::from_secs(8),
        "it had not waited"
    );
    until(SOON, "the record", || running.audit().len() == 1);
    assert_eq!(running.audit()[0].end, "refused");
    stop(running);
}

#[test]
fn a_port_that_the_operator_does_not_allow_is_not_listened_on() {
    let mut world = start!(
        World::builder()
            .policy("version: v1\nname: shop\ningress:\n  - listen_port: 80\n  - listen_port: 81\n")
            .outer(&["--ingress", MAPPING, "--ingress", "bank:81=192.0.2.2:8001"])
    );
    if world.direct() {
        return;
    }
    let running = Guest::new(&["sleep", "infinity"]).spawn(&world);
    listening(&mut world, MAPPING);
    outer_says(&mut world, &["no --ingress maps", "shop", "ports=\"81\""]);
    let refused = connect(&world, "192.0.2.2:8001").map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    assert!(
        !outer_log(&mut world)
            .contains("guest requests ingress ports that no --ingress maps: not listening more=1")
    );
    stop(running);
}

#[test]
fn an_address_that_is_taken_is_listened_on_when_it_is_free() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let taken = world.host().listen(ADDRESS);
    let running = Guest::python(program!("app"), &["after-end", "8080"]).spawn(&world);
    outer_says(&mut world, &["can't listen for clients", MAPPING, "in use"]);
    drop(taken);
    listening(&mut world, MAPPING);
    let stream = connect(&world, ADDRESS).expect("a listener");
    assert_eq!(exchange(stream, b"x").expect("an answer"), expected(b"x"));
    stop(running);
}

/// A guest with a name of its own.
fn named(world: &World, name: &str, words: &[&str]) -> Running {
    let file: PathBuf = world.file(&format!("{name}.yaml"), policy(name, 80, 8080));
    let mut running = Guest::python(program!("app"), words)
        .policy(file)
        .spawn(world);
    running.process.wait_for("ready", SOON);
    running
}

#[test]
fn two_guests_have_the_same_port_on_different_addresses() {
    let (one, two) = ("one:80=192.0.2.2:8001", "two:80=192.0.2.2:8002");
    let mut world = start!(world(&[one, two]));
    if world.direct() {
        return;
    }
    let first = named(&world, "one", &["after-end", "8080"]);
    let second = named(&world, "two", &["after-end", "8080"]);
    listening(&mut world, one);
    listening(&mut world, two);
    for (address, count) in [("192.0.2.2:8001", 3), ("192.0.2.2:8002", 5)] {
        for _ in 0..count {
            let stream = connect(&world, address).expect("a listener");
            assert_eq!(exchange(stream, b"x").expect("an answer"), expected(b"x"));
        }
    }
    assert_eq!(stop(first).audit.len(), 3);
    assert_eq!(stop(second).audit.len(), 5);
}

#[test]
fn a_restarted_host_has_its_guests_and_their_clients_again() {
    let Some((mut world, running)) = served(&["after-end", "8080"]) else {
        return;
    };
    for _ in 0..3 {
        let mut cut = connect(&world, ADDRESS).expect("a listener");
        cut.write_all(b"x").expect("a connection");
        world.outer().kill();
        // Ends at once: that it is a reset is the relay's to see to.
        match cut.read(&mut [0; 1]) {
            Ok(0) => {}
            other => assert_eq!(
                other.map_err(|error| error.kind()),
                Err(ErrorKind::ConnectionReset)
            ),
        }
        let refused = connect(&world, ADDRESS).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
        world.start_outer();
        listening(&mut world, MAPPING);
        let stream = connect(&world, ADDRESS).expect("a listener");
        assert_eq!(exchange(stream, b"x").expect("an answer"), expected(b"x"));
    }
    stop(running);
}

#[test]
fn a_cut_link_refuses_no_client() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let path = world.dir().join("wire.sock");
    let wire = Wire::new(&path, &world.link_path());
    let mut running = Guest::python(program!("app"), &["after-end", "8080"])
        .flag("--link")
        .flag(&format!("unix://{}", path.display()))
        .spawn(&world);
    running.process.wait_for("ready", SOON);
    listening(&mut world, MAPPING);
    for _ in 0..10 {
        let start = Instant::now();
        for connection in wire.connections() {
            wire.cut(connection);
        }
        let stream = connect(&world, ADDRESS).expect("a listener");
        assert_eq!(exchange(stream, b"x").expect("an answer"), expected(b"x"));
        println!("served {:?} after the cut", start.elapsed());
    }
    let log = outer_log(&mut world);
    assert_eq!(log.matches("not listening for clients").count(), 0, "{log}");
    stop(running);
}

#[test]
fn a_killed_guests_listener_ends_and_the_next_guest_gets_its_clients() {
    let mut world = start!(world(&[MAPPING]));
    if world.direct() {
        return;
    }
    let mut first = app(&mut world, &["hold", "8080"]);
    let mut cut = connect(&world, ADDRESS).expect("a listener");
    cut.write_all(b"x").expect("a connection");
    first.process.wait_for("first x", SOON);
    first.process.kill();
    let read = cut.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
    // The next one takes over, be it at once or later.
    let second = Guest::python(program!("app"), &["after-end", "8080"]).spawn(&world);
    until(SOON, "the next guest", || {
        connect(&world, ADDRESS)
            .and_then(|stream| exchange(stream, b"x"))
            .is_ok_and(|got| got == expected(b"x"))
    });
    // One that ends in good order says so: no client waits in vain.
    stop(second);
    outer_says(&mut world, &["not listening for clients any more", MAPPING]);
    let refused = connect(&world, ADDRESS).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    let mut third = Guest::python(program!("app"), &["hold", "8080"]).spawn(&world);
    third.process.wait_for("ready", SOON);
    until(SOON, "the third guest", || connect(&world, ADDRESS).is_ok());
    third.process.kill();
    until(SOON, "the end of the listener", || {
        connect(&world, ADDRESS).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}
