//! Ingress: clients on the internet, apps in guests.

mod drain;
mod flow_ends;
mod grpc;
mod guests;
mod limits;
mod mappings;
mod proxy_protocol;
mod real_servers;
mod socket_activation;
mod tls_certificates;
mod tls_flow_ends;
mod tls_worlds;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::guest::Running;
use odyn_tests::process::until;
use odyn_tests::{Guest, World};

use crate::program;

/// For whatever takes a moment, on a machine that is slow.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// The host's listener in most tests, for port 80 of any guest.
pub(crate) const ADDRESS: &str = "192.0.2.2:8000";
pub(crate) const MAPPING: &str = "80=192.0.2.2:8000";

pub(crate) fn world(mappings: &[&str]) -> odyn_tests::world::Builder {
    let words: Vec<&str> = mappings.iter().flat_map(|m| ["--ingress", m]).collect();
    World::builder()
        .policy(&policy("shop", 80, 8080))
        .outer(&words)
}

pub(crate) fn policy(name: &str, listen: u16, target: u16) -> String {
    format!(
        "version: v1\nname: {name}\ningress:\n  - listen_port: {listen}\n    target_port: {target}\n"
    )
}

/// The host's log.
pub(crate) fn outer_log(world: &mut World) -> String {
    String::from_utf8_lossy(&world.outer().stderr()).into_owned()
}

/// Waits for a line of the host's log with all these words.
#[track_caller]
pub(crate) fn outer_says(world: &mut World, words: &[&str]) {
    until(SOON, &format!("a line with {words:?}"), || {
        outer_log(world)
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    });
}

/// Waits until clients of this mapping have a guest to go to.
#[track_caller]
pub(crate) fn listening(world: &mut World, mapping: &str) {
    outer_says(world, &["listening for clients", mapping]);
}

/// A client on the internet.
pub(crate) fn connect(world: &World, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address");
    world.internet().enter(move || {
        let stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        Ok(stream)
    })
}

/// Starts a server and waits until it and the host listen.
pub(crate) fn app(world: &mut World, words: &[&str]) -> Running {
    let mut running = Guest::python(program!("app"), words).spawn(world);
    running.process.wait_for("ready", SOON);
    listening(world, MAPPING);
    running
}

/// A world with this server in its guest; none in the control run, and without root.
pub(crate) fn served(words: &[&str]) -> Option<(World, Running)> {
    let mut world = world(&[MAPPING]).start()?;
    if world.direct() {
        return None;
    }
    let running = app(&mut world, words);
    Some((world, running))
}

/// Sends `sent` and its end, and returns the server's answer.
pub(crate) fn exchange(mut stream: TcpStream, sent: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut writer = stream.try_clone()?;
    let bytes = sent.to_vec();
    let write = std::thread::spawn(move || {
        writer.write_all(&bytes)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    write.join().expect("the writer")?;
    Ok(got)
}

pub(crate) fn expected(sent: &[u8]) -> Vec<u8> {
    [format!("{}\n", sent.len()).as_bytes(), sent].concat()
}

pub(crate) fn stop(running: Running) -> odyn_tests::Output {
    running.process.signal(Signal::SIGTERM);
    running.finish()
}
