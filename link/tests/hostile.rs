//! Bytes that the other half should not send.
#![allow(missing_docs)]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderValue, Response};
use odyn_link::{DatagramError, HostLink, HostLinkConfig, LinkState, OpenError, ServerConfig};
use odyn_proto::{Endpoint, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use common::{Host, World, bad_host, down, hold, soon, up};

/// Bytes that look random and are the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

/// Starts of what a host might send, to be followed by noise.
fn openings() -> Vec<Vec<u8>> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut all = vec![vec![], settings.to_vec()];
    // A frame of each type, and an unknown one, with a length that is right, on streams 0 and 1.
    for kind in 0..=10u8 {
        for stream in [0, 1] {
            for flags in [0, 1, 0x2c] {
                let mut bytes = settings.to_vec();
                bytes.extend([0, 0, 8, kind, flags, 0, 0, 0, stream]);
                all.push(bytes);
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_host_neither_panics_nor_hangs_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let path = common::socket_path(&dir);
    let listener = UnixListener::bind(&path).unwrap();
    let openings = openings();
    let count = openings.len();
    let served = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let served = Arc::clone(&served);
        async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let i = served.fetch_add(1, Ordering::SeqCst);
                let mut bytes = openings[i % openings.len()].clone();
                bytes.extend(noise(i as u64, 100_000));
                tokio::spawn(async move {
                    let _ = socket.write_all(&bytes).await;
                    let _ = socket.shutdown().await;
                    let _ = socket.read_to_end(&mut Vec::new()).await;
                });
            }
        }
    });
    let mut config = HostLinkConfig::default();
    config.backoff_min = Duration::from_millis(1);
    config.backoff_max = Duration::from_millis(1);
    config.open_wait = Duration::from_millis(10);
    config.tuning.handshake_timeout = Duration::from_millis(100);
    let client = HostLink::new(Endpoint::Unix { path: path.clone() }, config);
    soon("every opening", async {
        while served.load(Ordering::SeqCst) < 2 * count {
            let opened = client.connect_tcp(&Target::host_loopback(80)).await;
            assert!(opened.is_err());
        }
    })
    .await;
    // And with an honest host it works.
    std::fs::remove_file(&path).unwrap();
    let _host = Host::start(&Endpoint::Unix { path }, ServerConfig::default());
    up(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_a_guest_neither_panics_nor_hangs_the_host() {
    let world = World::new().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let Endpoint::Unix { path } = &world.endpoint else {
        panic!()
    };
    for (i, opening) in openings().into_iter().enumerate() {
        let mut socket = UnixStream::connect(path).await.unwrap();
        let mut bytes = if i == 0 { vec![] } else { preface.to_vec() };
        bytes.extend(opening);
        bytes.extend(noise(i as u64, 100_000));
        let (mut read, mut write) = socket.split();
        let both = async {
            let write = async {
                let _ = write.write_all(&bytes).await;
                let _ = write.shutdown().await;
            };
            let mut end = Vec::new();
            let (_, read) = tokio::join!(write, read.read_to_end(&mut end));
            let _ = read;
        };
        soon("the end of a bad guest", both).await;
    }
    let query = Bytes::from_static(b"still there");
    assert_eq!(
        soon("dns", world.client.dns(query)).await.unwrap(),
        "ereht llits"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_answers_are_errors() {
    for header in ["enclaver-outer; next-hop=\"", "", "\u{fc}", "a, b"] {
        let (_dir, client) = bad_host(move |_, mut respond| {
            let mut response = Response::new(());
            let value = HeaderValue::from_bytes(header.as_bytes()).unwrap();
            response.headers_mut().insert("proxy-status", value);
            let _ = respond.send_response(response, false);
        })
        .await;
        let opened = soon("answer", client.connect_tcp(&Target::host_loopback(80))).await;
        assert!(
            matches!(opened, Err(OpenError::Protocol(_))),
            "{header:?}: {opened:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_instead_of_an_answer_is_an_error_and_the_link_stays() {
    let (_dir, client) =
        bad_host(|_, mut respond| respond.send_reset(Reason::ENHANCE_YOUR_CALM)).await;
    for _ in 0..100 {
        let opened = soon("reset", client.connect_tcp(&Target::host_loopback(80))).await;
        assert!(matches!(opened, Err(OpenError::Protocol(_))), "{opened:?}");
    }
    assert_eq!(*client.state().borrow(), LinkState::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_always_asks_to_try_again_is_not_asked_for_ever() {
    let (_dir, client) =
        bad_host(|_, mut respond| respond.send_reset(Reason::REFUSED_STREAM)).await;
    let opened = soon("the end", client.connect_tcp(&Target::host_loopback(80))).await;
    assert!(matches!(opened, Err(OpenError::Protocol(_))), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_never_answers_is_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix {
        path: common::socket_path(&dir),
    };
    let listener = UnixListener::bind(common::socket_path(&dir)).unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let mut builder = h2::server::Builder::new();
            let builder = builder.enable_connect_protocol();
            let mut connection = builder.handshake::<_, Bytes>(socket).await.unwrap();
            held.push(tokio::spawn(async move {
                let mut requests = Vec::new();
                while let Some(Ok(request)) = connection.accept().await {
                    requests.push(request);
                }
            }));
        }
    });
    let mut config = HostLinkConfig::default();
    config.open_timeout = Duration::from_millis(50);
    let client = HostLink::new(endpoint, config);
    up(&client).await;
    let opened = soon(
        "the time-out",
        client.connect_tcp(&Target::host_loopback(80)),
    )
    .await;
    assert!(matches!(opened, Err(OpenError::Timeout(_))), "{opened:?}");
    assert_eq!(client.flows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_dns_answer_is_cut() {
    let (_dir, client) = bad_host(|_, mut respond| {
        let mut response = Response::new(());
        let value = HeaderValue::from_static("application/dns-message");
        response.headers_mut().insert("content-type", value);
        let mut send = respond.send_response(response, false).unwrap();
        for _ in 0..100 {
            let _ = send.send_data(Bytes::from_static(&[0; 10_000]), false);
        }
        hold(send);
    })
    .await;
    let answer = soon("answer", client.dns(Bytes::from_static(b"?"))).await;
    assert!(matches!(answer, Err(OpenError::TooLong(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn capsules_that_are_unknown_are_skipped_and_too_long_ones_end_the_flow() {
    let (_dir, client) = bad_host(|_, mut respond| {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        // Type 0x29 of three bytes, context 7, a datagram, then one that is too long.
        let bytes = b"\x29\x03abc\x00\x02\x07x\x00\x06\x00hello\x00\x80\x01\x00\x09";
        let _ = send.send_data(Bytes::from_static(bytes), false);
        hold(send);
    })
    .await;
    let target = Target::address(Ipv4Addr::LOCALHOST, 53);
    let mut flow = soon("opening", client.connect_udp(&target))
        .await
        .unwrap()
        .flow;
    assert_eq!(
        soon("datagram", flow.recv()).await.unwrap().unwrap(),
        "hello"
    );
    let received = soon("error", flow.recv()).await;
    assert!(
        matches!(received, Err(DatagramError::Capsule(_))),
        "{received:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_answering_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = common::socket_path(&dir);
    let listener = UnixListener::bind(&path).unwrap();
    let (freeze, frozen) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let mut frozen = frozen.clone();
            if *frozen.borrow() {
                held.push(socket);
                continue;
            }
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let builder = builder.enable_connect_protocol();
                let mut connection = builder.handshake::<_, Bytes>(socket).await.unwrap();
                tokio::select! {
                    _ = connection.accept() => {}
                    _ = frozen.changed() => std::future::pending().await,
                }
            });
        }
    });
    let mut config = HostLinkConfig::default();
    config.tuning.keepalive = Duration::from_millis(20);
    config.tuning.keepalive_timeout = Duration::from_millis(100);
    config.tuning.handshake_timeout = Duration::from_millis(100);
    let client = HostLink::new(Endpoint::Unix { path }, config);
    up(&client).await;
    freeze.send(true).unwrap();
    down(&client).await;
}
