//! gRPC: calls of every kind and a graceful end, by grpcio and by tonic.

use std::path::Path;

use nix::sys::signal::Signal;
use odyn_tests::{Guest, Process, World};

use super::tls_worlds::{each_way, fine};
use super::{ADDRESS, MAPPING, SOON, listening};
use crate::{program, shop, start};

/// The address of the last test's service, on the internet.
const SERVICE: &str = "203.0.113.20:50051";

const PYTHON: [&str; 3] = ["/usr/bin/python3", "-c", program!("grpc_calls")];

/// The calls of a client that is up to the middle of its last one when the service is told to stop,
/// and of which a file lets the rest go on; what the client says.
fn until_the_end(world: &World, server: &mut Process, mut client: Process) -> String {
    client.wait_for("midway", 3 * SOON);
    server.signal(Signal::SIGTERM);
    server.wait_for("stopping", SOON);
    std::fs::write(world.scratch().join("go"), "").expect("own directory");
    fine(client)
}

/// The file that lets a client go on.
fn go(world: &World) -> String {
    world.scratch().join("go").display().to_string()
}

#[test]
fn calls_of_every_kind_and_a_graceful_end_by_grpcio() {
    each_way(", alpn: [h2]", |world, way| {
        let words = [&PYTHON[..], &["serve", "8080"]].concat();
        let mut running = Guest::new(&words).spawn(world);
        running.process.wait_for("ready", SOON);
        listening(world, MAPPING);
        let go = go(world);
        let words = [&PYTHON[..], &["call", ADDRESS, way.ca(), &go]].concat();
        let client = world.internet_spawn("grpc", &words);
        let said = until_the_end(world, &mut running.process, client);
        assert_eq!(said, "unary\ndown\nup\ndeadline\nmidway\nboth\n");
        let out = running.finish();
        assert_eq!(out.code, 0, "{}", out.describe());
    });
}

/// The output of tonic's client when all was well.
const TONIC_SAYS: &str = "unary\ndown\nup\ndeadline\nreset\nmidway\nboth\n";
/// The output of tonic's service then: two calls were given up.
const TONIC_SAW: &str = "ready\ngiven up 1\ngiven up 2\nstopping\n";

fn tonic(world: &World) -> String {
    let executable = world.install(Path::new(env!("CARGO_BIN_EXE_odyn-grpc")));
    executable.display().to_string()
}

#[test]
fn calls_of_every_kind_and_a_graceful_end_by_tonic() {
    each_way(", alpn: [h2]", |world, way| {
        let tonic = tonic(world);
        let mut running = Guest::new(&[&tonic, "serve", "127.0.0.1:8080"]).spawn(world);
        running.process.wait_for("ready", SOON);
        listening(world, MAPPING);
        let go = go(world);
        let words = [&*tonic, "call", ADDRESS, way.ca(), &go];
        let client = world.internet_spawn("grpc", &words);
        let said = until_the_end(world, &mut running.process, client);
        assert_eq!(said, TONIC_SAYS);
        let out = running.finish();
        assert_eq!(
            (out.code, &*out.stdout),
            (0, TONIC_SAW),
            "{}",
            out.describe()
        );
        // One connection carried it all. How it ended is not asked of its record: a host whose
        // last client has ended may leave just when the guest asks it what is delivered.
        assert_eq!(out.audit.len(), 1, "{}", out.describe());
    });
}

#[test]
fn a_guests_own_calls_go_out_and_survive_a_graceful_end_of_the_service() {
    let world = start!(shop());
    let (tonic, go) = (tonic(&world), go(&world));
    let mut server = world.internet_spawn("grpc", &[&tonic, "serve", SERVICE]);
    server.wait_for("ready", SOON);
    let mut running = Guest::new(&[&tonic, "call", SERVICE, "", &go]).spawn(&world);
    running.process.wait_for("midway", 3 * SOON);
    server.signal(Signal::SIGTERM);
    server.wait_for("stopping", SOON);
    std::fs::write(&go, "").expect("own directory");
    let out = running.finish();
    assert_eq!(out.ok(), TONIC_SAYS);
    out.allowed("tcp", "203.0.113.20", 50051, "203.0.113.20");
    assert_eq!(fine(server), TONIC_SAW);
}
