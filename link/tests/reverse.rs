//! Connections that the guest dials and on which the host opens the flows.
#![allow(missing_docs)]

mod common;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use odyn_link::drain::Trigger;
use odyn_link::{
    ClientSocket, Counters, Drained, End, GuestLink, GuestLinkConfig, HostLanes, HostLink,
    HostLinkConfig, IngressHandler, LeaveReason, LinkError, LinkState, ListenOptions, Listener,
    OpenError, PendingClient, Preamble, ReversedConfig, ReversedConnections, Stream, Tuning, dial,
    greet_guest, read_preamble, relay,
};
use odyn_proto::wire::ingress::{Incoming, IngressHello};
use odyn_proto::{Endpoint, GuestName, Identity, Refusal, RunId};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use common::{LIMIT, is_reset, lanes, listen, pair, soon};

/// Connects clients of port 80 to one address, and refuses the others.
struct Program {
    address: SocketAddr,
    seen: Mutex<Vec<Incoming>>,
    ends: Mutex<Vec<End>>,
}

impl IngressHandler for Program {
    async fn serve(&self, incoming: Incoming, client: PendingClient) {
        self.seen.lock().unwrap().push(incoming);
        if incoming.port.get() != 80 {
            client.refuse(Refusal::Prohibited);
            return;
        }
        let socket = TcpStream::connect(self.address).await.unwrap();
        let Some(stream) = client.accept() else {
            return;
        };
        let end = relay(socket, stream, Arc::new(Counters::default())).await;
        self.ends.lock().unwrap().push(end);
    }
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn incoming(number: u16) -> Incoming {
    Incoming::new(
        port(number),
        "203.0.113.9:40000".parse().unwrap(),
        "[2001:db8::1]:443".parse().unwrap(),
    )
}

fn hello() -> IngressHello {
    IngressHello {
        identity: Identity {
            name: GuestName::nearest("shop"),
            run: RunId::new([7; 16]),
        },
        ports: vec![port(80), port(443)],
    }
}

/// The host: adopts every reversed connection.
struct Host {
    client: GuestLink,
    leaves: mpsc::Receiver<LeaveReason>,
    adopted: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl Host {
    fn start(endpoint: &Endpoint) -> Self {
        let listener = Listener::bind(endpoint, ListenOptions::default()).unwrap();
        let mut config = GuestLinkConfig::default();
        config.open_wait = LIMIT;
        config.tuning.reset_grace = Duration::from_millis(100);
        config.tuning.lanes = lanes();
        let lanes = HostLanes::new(&config.tuning);
        config.lanes = Some(Arc::clone(&lanes));
        let client = GuestLink::new("shop".into(), config.clone(), Trigger::default().watch());
        let (sender, leaves) = mpsc::channel(1000);
        let (adopted, adoptions) = watch::channel(0);
        let accepting = tokio::spawn({
            let client = client.clone();
            async move {
                loop {
                    let (transport, _) = listener.accept(&Tuning::default()).await.unwrap();
                    let transport = match read_preamble(transport, LIMIT).await.unwrap() {
                        Preamble::Reversed(transport) => transport,
                        Preamble::Lane(key, transport) => {
                            let (lanes, tuning) = (Arc::clone(&lanes), config.tuning.clone());
                            tokio::spawn(async move { lanes.serve(transport, key, &tuning).await });
                            continue;
                        }
                        Preamble::Forward(_) => panic!("not reversed"),
                    };
                    // A guest may be cut before it has said a word.
                    let Ok(greeted) = greet_guest(transport, &config.tuning).await else {
                        continue;
                    };
                    assert_eq!(*greeted.hello(), hello());
                    let (leave, sender) = (client.adopt(greeted), sender.clone());
                    tokio::spawn(async move {
                        let _ = sender.send(leave.await).await;
                    });
                    adopted.send_modify(|count| *count += 1);
                }
            }
        });
        Self {
            client,
            leaves,
            adopted: adoptions,
            accepting,
        }
    }

    /// Waits until every connection of the guest is there.
    async fn whole(&mut self) {
        let all = ReversedConfig::default().connections;
        soon("adoptions", self.adopted.wait_for(|count| *count == all))
            .await
            .unwrap();
        let mut state = self.client.state();
        soon("the link", state.wait_for(|s| *s == LinkState::Up))
            .await
            .unwrap();
    }
}

struct World {
    dir: TempDir,
    endpoint: Endpoint,
    program: Arc<Program>,
    listener: TcpListener,
    /// The guest's drain.
    guest: HostLink,
    reverse: ReversedConnections,
    host: Host,
}

fn reverse_config() -> ReversedConfig {
    let mut config = ReversedConfig::default();
    config.tuning.lanes = lanes();
    config
}

/// A guest without connections of its own.
fn guest() -> HostLink {
    let mut config = HostLinkConfig::default();
    config.connections = 0;
    HostLink::new(Endpoint::Unix { path: "/".into() }, config)
}

/// Drains and closes a guest.
async fn drain(guest: &HostLink, reverse: &ReversedConnections, limit: Duration) -> Drained {
    guest.begin_drain(limit);
    let drained = guest.drain(std::future::pending()).await;
    tokio::join!(reverse.close(LIMIT), guest.close(LIMIT));
    drained
}

fn endpoint(dir: &Path) -> Endpoint {
    Endpoint::Unix {
        path: dir.join("link.sock"),
    }
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = endpoint(dir.path());
        let listener = listen().await;
        let program = Arc::new(Program {
            address: listener.local_addr().unwrap(),
            seen: Mutex::default(),
            ends: Mutex::default(),
        });
        let mut host = Host::start(&endpoint);
        let guest = guest();
        let reverse = ReversedConnections::start(
            endpoint.clone(),
            reverse_config(),
            hello(),
            Arc::clone(&program),
            guest.drain_watch(),
        );
        host.whole().await;
        Self {
            dir,
            endpoint,
            program,
            listener,
            guest,
            reverse,
            host,
        }
    }

    /// A client's socket, the program's, and the end of the host's relay.
    async fn connect(&self) -> (TcpStream, TcpStream, JoinHandle<End>) {
        connect(&self.host.client, &self.listener).await
    }
}

async fn connect(
    client: &GuestLink,
    listener: &TcpListener,
) -> (TcpStream, TcpStream, JoinHandle<End>) {
    let (outside, arrival) = arrival().await;
    let incoming = incoming(80);
    let (opened, accepted) = soon("opening", async {
        tokio::join!(
            client.connect_ingress(&incoming, &arrival),
            listener.accept()
        )
    })
    .await;
    let relay = arrival.relay(opened.unwrap());
    (outside, accepted.unwrap().0, tokio::spawn(relay))
}

/// A client's socket, and its end on the host.
async fn arrival() -> (TcpStream, ClientSocket) {
    let (outside, inside) = pair().await;
    (outside, ClientSocket::new(inside, incoming(80).client))
}

/// Asks for a port.
async fn ask(client: &GuestLink, number: u16) -> Result<Stream, OpenError> {
    let (_outside, arrival) = arrival().await;
    client.connect_ingress(&incoming(number), &arrival).await
}

async fn read_all(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    soon("the end", socket.read_to_string(&mut text))
        .await
        .unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_talks_with_the_program_and_each_direction_ends_by_itself() {
    let world = World::new().await;
    let (mut client, mut program, relay) = world.connect().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut program).await, "question");
    program.write_all(b"answer").await.unwrap();
    drop(program);
    assert_eq!(read_all(&mut client).await, "answer");
    assert_eq!(soon("end", relay).await.unwrap(), End::Closed);
    assert_eq!(*world.program.seen.lock().unwrap(), [incoming(80)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_go_both_ways() {
    let world = World::new().await;
    let (client, mut program, relay) = world.connect().await;
    client.set_zero_linger().unwrap();
    drop(client);
    let read = soon("reset", program.read(&mut [0; 1])).await;
    assert!(is_reset(&read), "{read:?}");
    assert_eq!(soon("end", relay).await.unwrap(), End::ResetBySocket);

    let (mut client, program, relay) = world.connect().await;
    program.set_zero_linger().unwrap();
    drop(program);
    let read = soon("reset", client.read(&mut [0; 1])).await;
    assert!(is_reset(&read), "{read:?}");
    assert_eq!(soon("end", relay).await.unwrap(), End::ResetByPeer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guest_does_not_want_is_refused_and_harms_nothing() {
    let world = World::new().await;
    let (mut client, mut program, _relay) = world.connect().await;
    for number in [81, 443, 65535] {
        let opened = ask(&world.host.client, number).await;
        assert!(
            matches!(opened, Err(OpenError::Refused(Refusal::Prohibited))),
            "{opened:?}"
        );
    }
    client.write_all(b"x").await.unwrap();
    soon("byte", program.read_exact(&mut [0; 1])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_host_has_its_guest_back() {
    let mut world = World::new().await;
    let (mut client, mut program, _relay) = world.connect().await;
    world.host.accepting.abort_handle().abort();
    // What a killed process does: everything is gone at once.
    assert_eq!(world.host.client.close(Duration::ZERO).await, 1);
    for socket in [&mut client, &mut program] {
        let read = soon("reset", socket.read(&mut [0; 1])).await;
        assert!(is_reset(&read), "{read:?}");
    }
    assert_eq!(
        soon("leave", world.host.leaves.recv()).await,
        Some(LeaveReason::Closing)
    );
    std::fs::remove_file(world.dir.path().join("link.sock")).ok();
    world.host = Host::start(&world.endpoint);
    let (mut client, mut program, _relay) = world.connect().await;
    client.write_all(b"x").await.unwrap();
    soon("byte", program.read_exact(&mut [0; 1])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_for_a_guest_that_comes_back() {
    let mut world = World::new().await;
    world.reverse.cut();
    let mut state = world.host.client.state();
    soon("down", state.wait_for(|state| *state != LinkState::Up))
        .await
        .unwrap();
    assert!(matches!(
        soon("leave", world.host.leaves.recv()).await,
        Some(LeaveReason::Lost(_))
    ));
    let waiting = {
        let client = world.host.client.clone();
        tokio::spawn(async move { ask(&client, 80).await })
    };
    world.reverse = ReversedConnections::start(
        world.endpoint.clone(),
        reverse_config(),
        hello(),
        Arc::clone(&world.program),
        world.guest.drain_watch(),
    );
    soon("accept", world.listener.accept()).await.unwrap();
    soon("opened", waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_drains_says_so_and_ends_when_its_clients_have_everything() {
    const SIZE: usize = 32_000_000;
    let World {
        host: Host {
            client: host,
            mut leaves,
            ..
        },
        guest,
        reverse,
        listener,
        program: shared,
        dir: _dir,
        ..
    } = World::new().await;
    let (mut client, mut program, relay) = connect(&host, &listener).await;
    let (mut idle, quiet, idle_relay) = connect(&host, &listener).await;
    let writing = tokio::spawn(async move {
        program.write_all(&vec![b'x'; SIZE]).await.unwrap();
        // The program's end closes all that it has.
        drop((program, quiet));
    });
    let draining = tokio::spawn(async move { drain(&guest, &reverse, LIMIT).await });
    for _ in 0..2 {
        assert_eq!(soon("leave", leaves.recv()).await, Some(LeaveReason::Asked));
    }
    let mut some = vec![0; 1_000_000];
    soon("some", client.read_exact(&mut some)).await.unwrap();
    assert!(!draining.is_finished(), "no kernel has room for the rest");
    assert_eq!(read_all(&mut client).await.len(), SIZE - some.len());
    soon("writing", writing).await.unwrap();
    // Clients that never close do not hold the end up, and see no reset.
    let drained = soon("drain", draining).await.unwrap();
    assert_eq!((drained.cut, drained.earlier), (0, vec![]));
    assert_eq!(soon("end", relay).await.unwrap(), End::Closed);
    assert_eq!(soon("end", idle_relay).await.unwrap(), End::Closed);
    assert_eq!(read_all(&mut idle).await, "");
    assert_eq!(*shared.ends.lock().unwrap(), [End::Closed; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_at_the_end_of_the_drain_and_said() {
    let world = World::new().await;
    let (client, mut program, relay) = world.connect().await;
    tokio::spawn(async move {
        let _ = program.write_all(&vec![b'x'; 64 << 20]).await;
    });
    // The first byte is there, and there is room for 64 MiB nowhere. (readable() may be wrong.)
    soon("a byte", client.peek(&mut [0; 1])).await.unwrap();
    let limit = Duration::from_millis(200);
    let drained = soon("drain", drain(&world.guest, &world.reverse, limit)).await;
    assert_eq!(drained.cut, 1);
    assert!(drained.undelivered > 0, "{drained:?}");
    let ends = world.program.ends.lock().unwrap().clone();
    assert!(
        matches!(ends.as_slice(), [End::Cut { undelivered }] if *undelivered == drained.undelivered),
        "{ends:?}"
    );
    assert_ne!(soon("end", relay).await.unwrap(), End::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_clients_a_drain_is_over_at_once() {
    let world = World::new().await;
    let start = std::time::Instant::now();
    let drained = drain(&world.guest, &world.reverse, LIMIT).await;
    assert_eq!((drained.cut, drained.earlier), (0, vec![]));
    assert!(start.elapsed() < LIMIT / 4, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drains_waits_for_its_clients() {
    let world = World::new().await;
    let (mut client, mut program, relay) = world.connect().await;
    let draining = {
        let client = world.host.client.clone();
        tokio::spawn(async move { client.close(LIMIT).await })
    };
    let opened = soon("refusal", async {
        loop {
            match ask(&world.host.client, 443).await {
                Err(OpenError::Refused(_)) => {}
                other => return other,
            }
        }
    })
    .await;
    assert!(matches!(opened, Err(OpenError::Closing)), "{opened:?}");
    program.write_all(b"last").await.unwrap();
    drop(program);
    assert_eq!(read_all(&mut client).await, "last");
    drop(client);
    assert_eq!(soon("end", relay).await.unwrap(), End::Closed);
    assert_eq!(soon("drain", draining).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_read_stalls_its_own_client_only() {
    let world = World::new().await;
    let (mut stalled, _program, _relay) = world.connect().await;
    let filled = tokio::spawn(async move { stalled.write_all(&vec![0; 64 << 20]).await });
    for _ in 0..8 {
        let (mut client, mut program, relay) = world.connect().await;
        client.write_all(&vec![b'y'; 100_000]).await.unwrap();
        drop(client);
        assert_eq!(read_all(&mut program).await.len(), 100_000);
        drop(program);
        assert_eq!(soon("end", relay).await.unwrap(), End::Closed);
    }
    assert!(
        !filled.is_finished(),
        "64 MiB were taken although no app reads"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_say_who_it_is_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = endpoint(dir.path());
    let listener = Listener::bind(&endpoint, ListenOptions::default()).unwrap();
    let run = hello().identity.run.to_string();
    for (name, run, ports, status) in [
        ("a b", run.as_str(), "80", 200),
        ("", run.as_str(), "80", 200),
        ("shop", "0", "80", 200),
        ("shop", run.as_str(), "0", 200),
        ("shop", run.as_str(), "80,", 200),
        ("shop", run.as_str(), "80", 404),
        ("shop", run.as_str(), "80", 500),
    ] {
        let response = http::Response::builder()
            .status(status)
            .header("odyn-guest", name)
            .header("odyn-run", run)
            .header("odyn-ports", ports)
            .body(())
            .unwrap();
        let guest = async {
            let tuning = Tuning::default();
            let mut transport = dial(&endpoint, &tuning, LIMIT).await.unwrap();
            transport
                .write_all(b"ODYN * REVERSE/1\r\n\r\nGO\r\n")
                .await
                .unwrap();
            let mut connection = h2::server::handshake(transport).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                respond.send_response(response.clone(), true).unwrap();
            }
        };
        let host = async {
            let (transport, _) = listener.accept(&Tuning::default()).await.unwrap();
            let Preamble::Reversed(transport) = read_preamble(transport, LIMIT).await.unwrap()
            else {
                panic!("not reversed");
            };
            greet_guest(transport, &Tuning::default()).await
        };
        let (_, greeted) = soon("greeting", async { tokio::join!(guest, host) }).await;
        assert!(
            matches!(greeted, Err(LinkError::Ingress(_) | LinkError::Protocol(_))),
            "{name:?} {run:?} {ports:?} {status}: {greeted:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_host_neither_harms_the_guest_nor_keeps_it_from_dialling() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = endpoint(dir.path());
    let listener = Listener::bind(&endpoint, ListenOptions::default()).unwrap();
    let mut config = ReversedConfig::default();
    config.backoff_min = Duration::from_millis(1);
    config.backoff_max = Duration::from_millis(1);
    config.tuning.handshake_timeout = Duration::from_millis(100);
    let apps = listen().await;
    let program = Arc::new(Program {
        address: apps.local_addr().unwrap(),
        seen: Mutex::default(),
        ends: Mutex::default(),
    });
    let guest = guest();
    let _reverse = ReversedConnections::start(
        endpoint.clone(),
        config,
        hello(),
        Arc::clone(&program),
        guest.drain_watch(),
    );
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    for round in 0..64_u8 {
        let (transport, _) = soon("dial", listener.accept(&Tuning::default()))
            .await
            .unwrap();
        let Preamble::Reversed(mut transport) = read_preamble(transport, LIMIT).await.unwrap()
        else {
            panic!("not reversed");
        };
        let noise: Vec<u8> = (0..50_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ round)
            .collect();
        let start = if round % 2 == 0 { preface } else { b"" };
        // A frame of each type with a length that is right, then noise.
        let frame = [0, 0, 8, round % 11, round, 0, 0, 0, round % 3];
        let bytes = [start, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &frame, &noise].concat();
        let _ = transport.write_all(&bytes).await;
        let _ = transport.shutdown().await;
        let mut rest = Vec::new();
        let _ = soon("end", transport.read_to_end(&mut rest)).await;
    }
    assert!(program.seen.lock().unwrap().is_empty());
    drop(listener);
    let host = Host::start(&endpoint);
    connect(&host.client, &apps).await;
}
