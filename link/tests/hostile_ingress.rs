//! A host that asks a guest for what the host's own code never asks for.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request};
use odyn_link::{
    HostLink, HostLinkConfig, IngressHandler, ListenOptions, Listener, PendingClient, Preamble,
    ReversedConfig, ReversedConnections, Tuning, read_preamble,
};
use odyn_proto::wire::authority;
use odyn_proto::wire::ingress::{Incoming, IngressHello};
use odyn_proto::{Endpoint, GuestName, Identity, Refusal, RunId, Target};
use tokio::net::TcpListener;

use common::{LIMIT, soon};

/// Notes whether a client got through.
#[derive(Default)]
struct NoClients {
    served: AtomicBool,
}

impl IngressHandler for NoClients {
    async fn serve(&self, _: Incoming, client: PendingClient) {
        self.served.store(true, Ordering::Relaxed);
        client.refuse(Refusal::Prohibited);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_no_way_to_anywhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix {
        path: dir.path().join("link.sock"),
    };
    let listener = Listener::bind(&endpoint, ListenOptions::default()).unwrap();
    let apps = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = apps.local_addr().unwrap();
    let mut none = HostLinkConfig::default();
    none.connections = 0;
    let guest = HostLink::new(endpoint.clone(), none);
    let hello = IngressHello {
        identity: Identity {
            name: GuestName::nearest("shop"),
            run: RunId::new([7; 16]),
        },
        ports: vec![80.try_into().unwrap()],
    };
    let clients = Arc::new(NoClients::default());
    let _reverse = ReversedConnections::start(
        endpoint,
        ReversedConfig::default(),
        hello,
        Arc::clone(&clients),
        guest.drain_watch(),
    );

    // A host that asks for what its own code never asks for.
    let (transport, _) = soon("dial", listener.accept(&Tuning::default()))
        .await
        .unwrap();
    let Preamble::Reversed(transport) = read_preamble(transport, LIMIT).await.unwrap() else {
        panic!("not reversed");
    };
    let (host, connection) = h2::client::handshake(transport).await.unwrap();
    tokio::spawn(connection);
    let target = Target::address(address.ip(), address.port());
    let (tcp, _) = authority::write_connect(&target).unwrap();
    let (udp, _) = authority::write_udp_path(&target).unwrap();
    let udp = format!("http://guest{udp}");
    let mut requests = [
        (Method::CONNECT, tcp.as_str()),
        (Method::CONNECT, udp.as_str()),
        (Method::POST, "http://guest/dns-query"),
    ]
    .map(|(method, uri)| {
        let mut request = Request::new(());
        (*request.method_mut(), *request.uri_mut()) = (method, uri.parse().unwrap());
        request
    });
    let protocol = h2::ext::Protocol::from_static("connect-udp");
    requests[1].extensions_mut().insert(protocol);
    for request in requests {
        let uri = request.uri().clone();
        let mut host = host.clone().ready().await.unwrap();
        let (response, _body) = host.send_request(request, false).unwrap();
        let response = soon("answer", response).await.unwrap();
        let why = response.headers().get("proxy-status");
        let refusal = Refusal::from_response(response.status(), why.map(HeaderValue::as_bytes));
        assert_eq!(refusal, Refusal::BadRequest, "{uri}");
    }
    let dialled = tokio::time::timeout(Duration::from_millis(50), apps.accept()).await;
    assert!(dialled.is_err(), "the app was reached");
    assert!(!clients.served.load(Ordering::Relaxed));
}
