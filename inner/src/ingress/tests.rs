//! Tests of ingress over a real link, with a host that asks for arbitrary ports.

use std::net::SocketAddr;
use std::path::Path;

use odyn_link::drain::Trigger;
use odyn_link::{
    ClientSocket, GuestLink, GuestLinkConfig, HostLink, HostLinkConfig, LaneMode, ListenOptions,
    Listener, OpenError, Preamble, Tuning, greet_guest, read_preamble,
};
use odyn_proto::wire::ingress::Incoming;
use odyn_proto::{GuestName, Refusal, RunId};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::audit::Sink;

const LONG: Duration = Duration::from_secs(60);

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn incoming(number: u16) -> Incoming {
    let client = "203.0.113.9:40000".parse().unwrap();
    Incoming::new(port(number), client, "192.0.2.2:443".parse().unwrap())
}

fn wanted(yaml: &str) -> Ports {
    let loaded = odyn_policy::load("policy.yaml", &format!("version: v1\nname: shop\n{yaml}"));
    let policy = loaded.policy.expect("a good policy");
    Ports::prepare(&policy.settings().ingress, Path::new("policy.yaml")).expect("good files")
}

struct World {
    _dir: tempfile::TempDir,
    audit: Audit,
    records: std::path::PathBuf,
    host: GuestLink,
    ports: Vec<NonZeroU16>,
    guest: HostLink,
    running: RunningIngress,
}

/// A guest with no connections but the reversed ones: it owns the drain.
fn guest() -> HostLink {
    let mut config = HostLinkConfig::default();
    config.connections = 0;
    HostLink::new(Endpoint::Unix { path: "/".into() }, config)
}

impl World {
    async fn new(yaml: &str, wait_timeout: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = dir.path().join("audit");
        let audit = Audit::new(Sink::file(&records).unwrap()).unwrap();
        let endpoint = Endpoint::Unix {
            path: dir.path().join("link"),
        };
        let listener = Listener::bind(&endpoint, ListenOptions::default()).unwrap();
        let identity = Identity {
            name: GuestName::nearest("shop"),
            run: RunId::new([1; 16]),
        };
        let guest = guest();
        let mut ports = wanted(yaml);
        for port in ports.ports.values_mut() {
            port.wait_timeout = wait_timeout;
        }
        let running = start_with(
            endpoint,
            LaneMode::Auto,
            ports,
            identity,
            audit.clone(),
            guest.drain_watch(),
            LONG,
        );
        let (transport, _) = listener.accept(&Tuning::default()).await.unwrap();
        let Preamble::Reversed(transport) = read_preamble(transport, LONG).await.unwrap() else {
            panic!("not reversed");
        };
        let config = GuestLinkConfig::default();
        let host = GuestLink::new("shop".into(), config.clone(), Trigger::default().watch());
        let greeted = greet_guest(transport, &config.tuning).await.unwrap();
        let ports = greeted.hello().ports.clone();
        drop(host.adopt(greeted));
        Self {
            _dir: dir,
            audit,
            records,
            host,
            ports,
            guest,
            running,
        }
    }

    async fn ask(&self, number: u16) -> Result<odyn_link::Stream, OpenError> {
        let incoming = incoming(number);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let arrival = ClientSocket::new(accepted.unwrap().0, incoming.client);
        timeout(LONG, self.host.connect_ingress(&incoming, &arrival))
            .await
            .expect("an answer")
    }

    fn records(&self) -> Vec<serde_json::Value> {
        self.audit.flush();
        read(&self.records)
    }
}

fn read(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A port that refuses connections. The socket holds it, so that no other test gets it.
pub(super) fn silent() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn refusal(opened: Result<odyn_link::Stream, OpenError>) -> Refusal {
    match opened {
        Err(OpenError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_reaches_the_ports_of_the_policy_only() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = app.local_addr().unwrap().port();
    let yaml = format!("ingress:\n  - listen_port: 443\n    target_port: {target}\n");
    let world = World::new(&yaml, LONG).await;
    assert_eq!(world.ports, [port(443)]);
    // The port of the app itself is not the port of the policy, and nor is another app's.
    for number in [target, other.local_addr().unwrap().port(), 1, 65535] {
        assert_eq!(refusal(world.ask(number).await), Refusal::Prohibited);
        assert_eq!(refusal(world.ask(number).await), Refusal::Prohibited);
    }
    let (opened, accepted) = tokio::join!(world.ask(443), app.accept());
    drop((opened.unwrap(), accepted.unwrap()));
    let records = loop {
        let records = world.records();
        if records.len() == 5 {
            break records;
        }
        tokio::task::yield_now().await;
    };
    for record in &records[..4] {
        assert_eq!(record["verdict"], "deny");
        assert_eq!(record["reason"], "no-ingress");
        assert_eq!(record["direction"], "ingress");
    }
    assert_eq!(records[0]["destination"], format!("ingress:{target}"));
    let allowed = &records[4];
    assert_eq!(allowed["verdict"], "allow");
    assert_eq!(allowed["protocol"], "tcp");
    assert_eq!(allowed["direction"], "ingress");
    assert_eq!(allowed["client"], "203.0.113.9:40000");
    assert_eq!(allowed["destination"], format!("127.0.0.1:{target}"));
    assert_eq!(allowed["dialled"], format!("127.0.0.1:{target}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_for_the_app_and_is_refused_when_it_does_not_come() {
    let (app, address) = silent();
    let yaml = format!("ingress:\n  - listen_port: {}\n", address.port());
    let world = World::new(&yaml, LONG).await;
    let late = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        app.listen(1).unwrap()
    };
    let (opened, _app) = tokio::join!(world.ask(address.port()), late);
    opened.unwrap();

    let (_app, address) = silent();
    let yaml = format!("ingress:\n  - listen_port: {}\n", address.port());
    let world = World::new(&yaml, Duration::from_millis(50)).await;
    let opened = world.ask(address.port()).await;
    assert_eq!(refusal(opened), Refusal::ConnectionRefused);
    let records = world.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["end"], "refused");
    assert_eq!(records[0]["dialled"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_app_is_refused_at_once_when_it_has_ended() {
    let (_app, address) = silent();
    let yaml = format!("ingress:\n  - listen_port: {}\n", address.port());
    let world = World::new(&yaml, 10 * LONG).await;
    let drain = async {
        while world.running.open_flows() == 0 {
            tokio::task::yield_now().await;
        }
        world.guest.begin_drain(LONG);
        world.guest.drain(std::future::pending()).await;
        tokio::join!(world.running.close(LONG), world.guest.close(LONG));
    };
    let (opened, ()) = tokio::join!(world.ask(address.port()), drain);
    assert_eq!(refusal(opened), Refusal::ConnectionRefused);
    assert_eq!(world.records()[0]["end"], "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_version_cannot_do_is_not_offered() {
    let yaml = "ingress:\n  - listen_port: 80\n  - listen_port: 443\n    target_port: 8443\n    \
                tls: { attested: true }\n";
    let world = World::new(yaml, LONG).await;
    assert_eq!(world.ports, [port(80)]);
    assert_eq!(refusal(world.ask(443).await), Refusal::Prohibited);
}

#[tokio::test]
async fn without_ports_nothing_is_dialled() {
    let endpoint = Endpoint::Unix {
        path: "/nonexistent".into(),
    };
    let identity = crate::guest_id::own(Some("shop")).unwrap();
    let audit = Audit::new(Sink::none()).unwrap();
    let running = start(
        endpoint,
        LaneMode::Auto,
        Ports::default(),
        identity,
        audit,
        guest().drain_watch(),
    );
    assert!(running.reverse.is_none());
    running.close(LONG).await;
}
