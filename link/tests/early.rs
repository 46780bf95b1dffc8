//! What a program writes before its flow is open.
#![allow(missing_docs)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use h2::Reason;
use odyn_link::{Counters, End, HostLink, OpenError, OpenedFlow, ServerConfig, Stream, relay};
use odyn_proto::{Refusal, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use common::{Host, World, bad_host, is_reset, listen, pair, soon, up};

/// A program with its connection, and its flow while it is being opened.
struct Opening {
    program: TcpStream,
    opening: oneshot::Receiver<(Result<OpenedFlow<Stream>, OpenError>, TcpStream)>,
}

impl Opening {
    /// `before` is written before anybody is asked.
    async fn new(client: &HostLink, server: SocketAddr, before: &[u8]) -> Self {
        let (mut program, captured) = pair().await;
        program.write_all(before).await.unwrap();
        let target = Target::address(server.ip(), server.port());
        let (done, opening) = oneshot::channel();
        let opener = client.clone();
        // Where a guest's flows are carried.
        client.carry(async move {
            let opened = opener.connect_tcp_for(&target, &captured).await;
            let _ = done.send((opened, captured));
        });
        Self { program, opening }
    }

    async fn opened(self) -> (TcpStream, Relayed) {
        let (opened, captured) = soon("opening", self.opening).await.unwrap();
        let counters = Arc::new(Counters::default());
        let relay = relay(captured, opened.unwrap().flow, Arc::clone(&counters));
        let relay = tokio::spawn(relay);
        (self.program, Relayed { relay, counters })
    }

    async fn error(self) -> OpenError {
        let (opened, _) = soon("the refusal", self.opening).await.unwrap();
        opened.unwrap_err()
    }
}

struct Relayed {
    relay: JoinHandle<End>,
    counters: Arc<Counters>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_come_once_and_before_the_others() {
    let world = World::new().await;
    let listener = listen().await;
    let server = listener.local_addr().unwrap();
    // None, few, as many as go along, and more.
    for size in [0, 1, 4096, 4097, 100_000] {
        let first: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let opening = Opening::new(&world.client, server, &first).await;
        let (mut accepted, _) = soon("accept", listener.accept()).await.unwrap();
        let (mut program, relayed) = opening.opened().await;
        program.write_all(b"the rest").await.unwrap();
        program.shutdown().await.unwrap();
        let mut got = Vec::new();
        soon("the bytes", accepted.read_to_end(&mut got))
            .await
            .unwrap();
        assert_eq!(got, [&first[..], b"the rest"].concat(), "{size}");
        accepted.write_all(b"answer").await.unwrap();
        drop(accepted);
        let mut answer = String::new();
        soon("the answer", program.read_to_string(&mut answer))
            .await
            .unwrap();
        assert_eq!(answer, "answer");
        assert_eq!(soon("end", relayed.relay).await.unwrap(), End::Closed);
        assert_eq!(relayed.counters.get(), (size as u64 + 8, 6));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_before_its_flow_is_open_is_heard() {
    let world = World::new().await;
    let listener = listen().await;
    let server = listener.local_addr().unwrap();
    for first in [&b""[..], b"all of it"] {
        let mut opening = Opening::new(&world.client, server, first).await;
        opening.program.shutdown().await.unwrap();
        let (mut accepted, _) = soon("accept", listener.accept()).await.unwrap();
        let (_program, _relayed) = opening.opened().await;
        let mut got = Vec::new();
        soon("the bytes", accepted.read_to_end(&mut got))
            .await
            .unwrap();
        assert_eq!(got, first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_come_while_the_host_dials_go_along() {
    let (requests, mut seen) = tokio::sync::mpsc::channel(1);
    let (_dir, client) = bad_host(move |request, respond| {
        let requests = requests.clone();
        tokio::spawn(async move {
            // Without an answer.
            let mut body = request.into_body();
            let bytes = body.data().await.unwrap().unwrap();
            requests.send(bytes).await.unwrap();
            drop(respond);
        });
    })
    .await;
    let mut opening = Opening::new(&client, ([127, 0, 0, 1], 80).into(), b"").await;
    sleep(Duration::from_millis(20)).await;
    opening.program.write_all(b"hello").await.unwrap();
    assert_eq!(soon("the bytes", seen.recv()).await.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_refuses_has_not_kept_the_link_from_others() {
    let world = World::new().await;
    let listener = listen().await;
    let server = listener.local_addr().unwrap();
    *world.host.dialler.refuse.lock().unwrap() = Some(Refusal::Prohibited);
    // They leave nothing behind in the host that the next would have to wait for.
    for _ in 0..200 {
        let opening = Opening::new(&world.client, server, &[7; 4096]).await;
        let error = opening.error().await;
        assert!(
            matches!(error, OpenError::Refused(Refusal::Prohibited)),
            "{error:?}"
        );
    }
    *world.host.dialler.refuse.lock().unwrap() = None;
    let opening = Opening::new(&world.client, server, b"now").await;
    let (mut accepted, _) = soon("accept", listener.accept()).await.unwrap();
    let _open = opening.opened().await;
    let mut got = [0; 3];
    soon("the bytes", accepted.read_exact(&mut got))
        .await
        .unwrap();
    assert_eq!(&got, b"now");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_may_have_passed_on_is_not_sent_again() {
    let World {
        dir: _dir,
        endpoint,
        host,
        client,
    } = World::new().await;
    let listener = listen().await;
    let server = listener.local_addr().unwrap();
    host.dialler.stalled.store(true, Ordering::Release);
    let with = Opening::new(&client, server, b"pay 100").await;
    let without = Opening::new(&client, server, b"").await;
    host.asked(2).await;
    host.killed().await;
    let host = Host::start(&endpoint, ServerConfig::default());
    up(&client).await;
    let error = with.error().await;
    assert!(matches!(error, OpenError::LinkLost), "{error:?}");
    // Nothing of this one can have arrived: it is opened by the next host.
    let (mut program, _relayed) = without.opened().await;
    let (mut accepted, _) = soon("accept", listener.accept()).await.unwrap();
    program.write_all(b"pay 200").await.unwrap();
    let mut got = [0; 7];
    soon("the bytes", accepted.read_exact(&mut got))
        .await
        .unwrap();
    assert_eq!(&got, b"pay 200");
    assert_eq!(*host.dialler.asked.borrow(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_has_not_looked_at_is_sent_again_with_its_bytes() {
    let tries = Arc::new(AtomicUsize::new(0));
    let (requests, mut seen) = tokio::sync::mpsc::channel(2);
    let (_dir, client) = bad_host({
        let tries = Arc::clone(&tries);
        move |request, mut respond| {
            if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                return respond.send_reset(Reason::REFUSED_STREAM);
            }
            let requests = requests.clone();
            tokio::spawn(async move {
                let mut body = request.into_body();
                let bytes = body.data().await.unwrap().unwrap();
                requests.send(bytes).await.unwrap();
                drop(respond);
            });
        }
    })
    .await;
    let _opening = Opening::new(&client, ([127, 0, 0, 1], 80).into(), b"once").await;
    assert_eq!(soon("the bytes", seen.recv()).await.unwrap(), "once");
    assert_eq!(tries.load(Ordering::Relaxed), 2);
}

/// Which is how a host passes on that the destination has reset the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_place_of_the_answer_is_the_destinations() {
    let (_dir, client) = bad_host(|_, mut respond| respond.send_reset(Reason::CONNECT_ERROR)).await;
    let opening = Opening::new(&client, ([127, 0, 0, 1], 80).into(), b"hello").await;
    assert!(matches!(opening.error().await, OpenError::Reset));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_resets_before_its_flow_is_open_resets_it() {
    let world = World::new().await;
    let listener = listen().await;
    let server = listener.local_addr().unwrap();
    let opening = Opening::new(&world.client, server, b"never mind").await;
    opening.program.set_zero_linger().unwrap();
    let (mut accepted, _) = soon("accept", listener.accept()).await.unwrap();
    let (program, relayed) = opening.opened().await;
    drop(program);
    assert_eq!(
        soon("end", relayed.relay).await.unwrap(),
        End::ResetBySocket
    );
    let read = soon("reset", async {
        let mut buffer = [0; 64];
        loop {
            match accepted.read(&mut buffer).await {
                Ok(1..) => {}
                other => return other,
            }
        }
    })
    .await;
    assert!(is_reset(&read), "{read:?}");
}
