//! A host that leaves just when the guest asks it what it has delivered.
#![allow(missing_docs)]

mod common;

use std::future::pending;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request};
use odyn_link::{
    Counters, End, HostLink, HostLinkConfig, IngressHandler, LaneMode, ListenOptions, Listener,
    PendingClient, Preamble, ReversedConfig, ReversedConnections, Tuning, read_preamble, relay,
};
use odyn_proto::wire::ingress::{Incoming, IngressHello};
use odyn_proto::{Endpoint, GuestName, Identity, RunId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use common::{LIMIT, listen, soon};

/// Connects every client to one address.
struct Program {
    address: std::net::SocketAddr,
    ends: Mutex<Vec<End>>,
}

impl IngressHandler for Program {
    async fn serve(&self, _: Incoming, client: PendingClient) {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let stream = client.accept().unwrap();
        let end = relay(socket, stream, Arc::new(Counters::default())).await;
        self.ends.lock().unwrap().push(end);
    }
}

fn request(method: Method, uri: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(uri)
        .header("odyn-client", "203.0.113.9:40000")
        .header("odyn-local", "192.0.2.1:80")
        .body(())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_nothing_more_when_it_is_asked_has_cut_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix {
        path: dir.path().join("link.sock"),
    };
    let listener = Listener::bind(&endpoint, ListenOptions::default()).unwrap();
    let apps = listen().await;
    let program = Arc::new(Program {
        address: apps.local_addr().unwrap(),
        ends: Mutex::default(),
    });
    let mut none = HostLinkConfig::default();
    none.connections = 0;
    let guest = HostLink::new(endpoint.clone(), none);
    let mut config = ReversedConfig::default();
    config.connections = 1;
    config.tuning.lanes = LaneMode::Never;
    let hello = IngressHello {
        identity: Identity {
            name: GuestName::nearest("shop"),
            run: RunId::new([7; 16]),
        },
        ports: vec![80.try_into().unwrap()],
    };
    let drain = guest.drain_watch();
    let reverse = ReversedConnections::start(endpoint, config, hello, Arc::clone(&program), drain);

    let (transport, _) = soon("dial", listener.accept(&Tuning::default()))
        .await
        .unwrap();
    let Preamble::Reversed(transport) = read_preamble(transport, LIMIT).await.unwrap() else {
        panic!("not reversed");
    };
    let (host, connection) = h2::client::handshake(transport).await.unwrap();
    tokio::spawn(connection);
    let mut host = host.ready().await.unwrap();
    let parked = request(Method::POST, "http://guest/flush");
    let (asked, parked) = host.send_request(parked, false).unwrap();
    let mut host = host.ready().await.unwrap();
    let connect = request(Method::CONNECT, "ingress:80");
    let (opened, mut client) = host.send_request(connect, false).unwrap();
    let (mut app, _) = soon("the program", apps.accept()).await.unwrap();
    let mut body = soon("the flow", opened).await.unwrap().into_body();
    client.send_data(Bytes::new(), true).unwrap();

    app.write_all(b"last words").await.unwrap();
    drop(app);
    let drained = tokio::spawn({
        let guest = guest.clone();
        guest.begin_drain(LIMIT);
        async move { guest.drain(pending()).await }
    });
    let mut got = Vec::new();
    while let Some(bytes) = soon("the bytes", body.data()).await {
        got.extend_from_slice(&bytes.unwrap());
    }
    assert_eq!(got, b"last words");
    // The guest asks, and at that moment the host leaves.
    soon("the question", asked).await.unwrap();
    drop(parked);
    assert_eq!(soon("drain", drained).await.unwrap().cut, 0);
    soon("close", reverse.close(LIMIT)).await;
    assert_eq!(*program.ends.lock().unwrap(), [End::Closed]);
}
