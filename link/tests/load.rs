//! Many flows, large flows, and flows that are not read, beside each other.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;

use odyn_link::{End, HostLinkConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use common::{World, echo_server, listen, soon};

const MIB: usize = 1024 * 1024;

/// A pool of one: every flow shares the connection.
async fn narrow() -> World {
    let mut config = HostLinkConfig::default();
    config.connections = 1;
    World::with(config, ServerConfig::default()).await
}

/// Byte `i` of a sequence that repeats at no power of two.
fn byte(seed: u64, i: u64) -> u8 {
    ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

async fn send_sequence(mut to: impl AsyncWriteExt + Unpin, seed: u64, len: u64) {
    let mut at = 0;
    while at < len {
        let n = (len - at).min(100_000);
        let buf: Vec<u8> = (at..at + n).map(|i| byte(seed, i)).collect();
        to.write_all(&buf).await.unwrap();
        at += n;
    }
    to.shutdown().await.unwrap();
}

async fn check_sequence(mut from: impl AsyncReadExt + Unpin, seed: u64, len: u64) {
    let mut buf = vec![0; 256 * 1024];
    let mut at = 0;
    loop {
        let n = from.read(&mut buf).await.unwrap();
        if n == 0 {
            break;
        }
        for &b in &buf[..n] {
            assert_eq!(b, byte(seed, at), "at {at}");
            at += 1;
        }
    }
    assert_eq!(at, len);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_both_ways_at_once_arrive_as_they_were() {
    let world = World::new().await;
    let listener = listen().await;
    let mut app = world.connect(listener.local_addr().unwrap()).await;
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    let len = 64 * MIB as u64;
    let (app_read, app_write) = app.tcp.split();
    let (server_read, server_write) = server.split();
    soon("the transfer", async {
        tokio::join!(
            send_sequence(app_write, 1, len),
            check_sequence(server_read, 1, len),
            send_sequence(server_write, 2, len),
            check_sequence(app_read, 2, len),
        )
    })
    .await;
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
    assert_eq!(app.counters.get(), (len, len));
}

/// Writes until nothing goes any more.
async fn clog(socket: &TcpStream) -> usize {
    let junk = vec![7; 256 * 1024];
    let mut written = 0;
    loop {
        match socket.try_write(&junk) {
            Ok(n) => written += n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // Until everything in between is full too.
                let more =
                    tokio::time::timeout(std::time::Duration::from_millis(200), socket.writable());
                if more.await.is_err() {
                    return written;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_read_stall_their_own_flows_only() {
    let world = narrow().await;
    let listener = listen().await;
    let deaf = listener.local_addr().unwrap();
    let mut stalled = Vec::new();
    for _ in 0..32 {
        let app = world.connect(deaf).await;
        let (server, _) = soon("accept", listener.accept()).await.unwrap();
        // Half of them send and are not read, half are sent to and do not read.
        stalled.push((app, server));
    }
    let mut clogging = Vec::new();
    for (i, (app, server)) in stalled.iter().enumerate() {
        clogging.push(clog(if i % 2 == 0 { &app.tcp } else { server }));
    }
    let written = soon("clogging", futures::future::join_all(clogging)).await;
    assert!(
        written.iter().all(|&n| n > MIB),
        "less than a window: {written:?}"
    );
    assert!(
        written.iter().all(|&n| n < 64 * MIB),
        "not bounded: {written:?}"
    );

    let mut fast = world.connect(echo_server().await).await;
    let (read, write) = fast.tcp.split();
    let len = 64 * MIB as u64;
    soon("the fast flow", async {
        tokio::join!(send_sequence(write, 3, len), check_sequence(read, 3, len))
    })
    .await;
    assert!(stalled.iter().all(|(app, _)| !app.relay.is_finished()));

    // And a stalled one goes on when it is read at last.
    let (app, mut server) = stalled.swap_remove(0);
    drop(app.tcp);
    let mut rest = Vec::new();
    soon("the rest", server.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest.len(), written[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_writes_to_a_deaf_peer_do_not_end_the_connection() {
    let world = narrow().await;
    let listener = listen().await;
    let app = world.connect(listener.local_addr().unwrap()).await;
    let (_server, _) = soon("accept", listener.accept()).await.unwrap();
    app.tcp.set_nodelay(true).unwrap();
    clog(&app.tcp).await;
    for _ in 0..20_000 {
        let _ = app.tcp.try_write(b"x");
        tokio::task::yield_now().await;
    }
    let mut other = world.connect(echo_server().await).await;
    let (read, write) = other.tcp.split();
    soon("another flow", async {
        tokio::join!(send_sequence(write, 4, 1000), check_sequence(read, 4, 1000))
    })
    .await;
    assert!(!app.relay.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_resets_at_once_leave_the_neighbour_alone() {
    let world = Arc::new(narrow().await);
    let server = echo_server().await;
    let mut neighbour = world.connect(server).await;
    let target = odyn_proto::Target::address(server.ip(), server.port());
    // Given up while the host dials, right after, and with the answer under way.
    let mut tasks = Vec::new();
    for i in 0..2000 {
        let (client, target) = (world.client.clone(), target.clone());
        tasks.push(tokio::spawn(async move {
            if i % 2 == 0 {
                let opening = client.connect_tcp(&target);
                tokio::select! {
                    biased;
                    _ = opening => {}
                    () = tokio::task::yield_now() => {}
                }
            } else {
                drop(client.connect_tcp(&target).await);
            }
        }));
    }
    for task in tasks {
        soon("a reset", task).await.unwrap();
    }
    neighbour.tcp.write_all(b"still there").await.unwrap();
    let mut got = [0; 11];
    soon("echo", neighbour.tcp.read_exact(&mut got))
        .await
        .unwrap();
    assert_eq!(&got, b"still there");
    assert!(!neighbour.relay.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_waits_when_the_connection_is_full() {
    let mut server = ServerConfig::default();
    // Two streams on the connection.
    server.tuning.stream_window = odyn_link::config::MAX_WINDOW / 2;
    let mut client = HostLinkConfig::default();
    client.connections = 1;
    let world = World::with(client, server).await;
    let echo = echo_server().await;
    let (one, _two) = (world.connect(echo).await, world.connect(echo).await);
    let target = odyn_proto::Target::address(echo.ip(), echo.port());
    let client = world.client.clone();
    let third = tokio::spawn(async move { client.connect_tcp(&target).await });
    drop(one.tcp);
    assert_eq!(soon("end", one.relay).await.unwrap(), End::Closed);
    soon("the third", third).await.unwrap().unwrap();
}
