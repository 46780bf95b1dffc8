//! Flows that move to a connection of their own, at any moment of their life.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;

use odyn_link::{HostLinkConfig, LaneMode, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use common::{App, World, is_reset, listen, soon};

const MIB: usize = 1024 * 1024;

/// Both halves; the guest wants lanes, the host has room for so many.
async fn world(guest: LaneMode, room: usize) -> World {
    let mut server = ServerConfig::default();
    server.tuning.max_lanes = room;
    let mut client = HostLinkConfig::default();
    client.tuning.lanes = guest;
    World::exactly(client, server).await
}

fn byte(i: usize) -> u8 {
    (i.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

async fn send(mut to: impl AsyncWriteExt + Unpin, len: usize, chunk: usize) {
    let mut at = 0;
    while at < len {
        let end = len.min(at + chunk);
        let bytes: Vec<u8> = (at..end).map(byte).collect();
        to.write_all(&bytes).await.expect("a socket that takes it");
        at = end;
    }
    to.shutdown().await.expect("a FIN");
}

async fn receive(mut from: impl AsyncReadExt + Unpin, len: usize) {
    let mut buffer = vec![0; 64 * 1024];
    let mut at = 0;
    loop {
        match from.read(&mut buffer).await.expect("no reset") {
            0 => break,
            count => {
                for &got in &buffer[..count] {
                    assert_eq!(got, byte(at), "at {at} of {len}");
                    at += 1;
                }
            }
        }
    }
    assert_eq!(at, len);
}

/// A flow with so many bytes in each direction, both at once.
async fn exchange(world: &World, listener: &TcpListener, up: usize, down: usize, chunk: usize) {
    let (mut app, server) = open(world, listener).await;
    let (read, write) = app.tcp.split();
    let (server_read, server_write) = server.into_split();
    soon("both directions", async {
        tokio::join!(
            send(write, up, chunk),
            receive(read, down),
            receive(server_read, up),
            send(server_write, down, chunk),
        )
    })
    .await;
}

async fn open(world: &World, listener: &TcpListener) -> (App, TcpStream) {
    let address = listener.local_addr().unwrap();
    let (app, accepted) = tokio::join!(world.connect(address), listener.accept());
    (app, accepted.unwrap().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_flow_moves_and_loses_nothing() {
    let world = world(LaneMode::Auto, 16).await;
    let listener = listen().await;
    assert_eq!(world.lanes_in_use(), 0);
    let (mut app, server) = open(&world, &listener).await;
    let (read, write) = app.tcp.split();
    let (server_read, server_write) = server.into_split();
    let watch = async {
        while world.lanes_in_use() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    soon("both directions", async {
        tokio::join!(
            send(write, 40 * MIB, 100_000),
            receive(read, 24 * MIB),
            receive(server_read, 40 * MIB),
            send(server_write, 24 * MIB, 77_777),
            watch,
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_of_many_small_messages_moves_and_may_become_bulk() {
    let world = world(LaneMode::Auto, 16).await;
    let listener = listen().await;
    let (mut app, server) = open(&world, &listener).await;
    let (read, write) = app.tcp.split();
    let (server_read, server_write) = server.into_split();
    let answer = echo(server_read, server_write);
    let ask = async {
        let (mut read, mut write) = (read, write);
        let mut message = [0; 64];
        while world.lanes_in_use() == 0 {
            write.write_all(&[7; 64]).await.expect("room");
            read.read_exact(&mut message).await.expect("an answer");
            assert_eq!(message, [7; 64]);
        }
        tokio::join!(send(write, 20 * MIB, 100_000), receive(read, 20 * MIB));
    };
    soon("both phases", async { tokio::join!(answer, ask) }).await;
}

async fn echo(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) {
    tokio::io::copy(&mut from, &mut to).await.expect("an echo");
    to.shutdown().await.expect("a FIN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_flow_stays() {
    let world = world(LaneMode::Auto, 16).await;
    let listener = listen().await;
    exchange(&world, &listener, 300_000, 300_000, 1000).await;
    assert_eq!(world.lanes_in_use(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_of_every_length_move_at_every_moment() {
    let world = Arc::new(world(LaneMode::Always, 64).await);
    let mut flows = Vec::new();
    for n in 0..400usize {
        let world = Arc::clone(&world);
        flows.push(tokio::spawn(async move {
            let listener = listen().await;
            // Some end before the lane is there, some right then, some long after.
            let up = [0, 1, 8, 1000, 65_536, 300_000][n % 6] + n;
            let down = [8, 0, 200_000, 1, 7, 65_536][n / 6 % 6] + n % 9;
            exchange(&world, &listener, up, down, 1 + n * 37).await;
        }));
    }
    for flow in flows {
        soon("a flow", flow).await.expect("a whole flow");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direction_goes_on_when_the_other_has_ended() {
    let world = world(LaneMode::Always, 16).await;
    let listener = listen().await;
    for first in [0, 5 * MIB] {
        let (mut app, server) = open(&world, &listener).await;
        let (mut server_read, server_write) = server.into_split();
        let (read, write) = app.tcp.split();
        // The answer begins when the request is over.
        let answer = async {
            receive(&mut server_read, first).await;
            send(server_write, 3 * MIB, 50_000).await;
        };
        soon("request and answer", async {
            tokio::join!(send(write, first, 90_000), answer, receive(read, 3 * MIB))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_a_reset_comes_before_it() {
    let world = world(LaneMode::Always, 16).await;
    let listener = listen().await;
    for _ in 0..10 {
        let (mut app, mut server) = open(&world, &listener).await;
        let bytes: Vec<u8> = (0..2 * MIB).map(byte).collect();
        let mut got = vec![0; bytes.len()];
        let (sent, read) = soon("the bytes", async {
            tokio::join!(server.write_all(&bytes), app.tcp.read_exact(&mut got))
        })
        .await;
        sent.unwrap();
        read.unwrap();
        assert!(got == bytes);
        // And bytes that are still unread when the reset is sent.
        server.write_all(&bytes[..10_000]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        server.set_zero_linger().unwrap();
        drop(server);
        let mut rest = Vec::new();
        let end = soon("the reset", app.tcp.read_to_end(&mut rest)).await;
        assert!(is_reset(&end), "{end:?}");
        assert_eq!(rest.len(), 10_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_room_leaves_the_flow_where_it_is() {
    let world = world(LaneMode::Always, 0).await;
    let listener = listen().await;
    exchange(&world, &listener, 3 * MIB, 3 * MIB, 60_000).await;
    assert_eq!(world.lanes_in_use(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_do_not_read_hold_no_more_than_buffers() {
    let world = world(LaneMode::Always, 16).await;
    let listener = listen().await;
    let (app, _server) = open(&world, &listener).await;
    // Everything in between fills up, and stays so.
    let junk = vec![7; MIB];
    let mut written = 0;
    loop {
        let more = std::time::Duration::from_millis(300);
        match tokio::time::timeout(more, app.tcp.writable()).await {
            Err(_) => break,
            Ok(ready) => ready.unwrap(),
        }
        match app.tcp.try_write(&junk) {
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        assert!(written < 64 * MIB, "nothing stops it");
    }
    exchange(&world, &listener, 2 * MIB, 2 * MIB, 60_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_for_no_flow_are_closed() {
    let world = world(LaneMode::Auto, 16).await;
    let path = common::socket_path(&world.dir);
    let preamble = odyn_proto::wire::lane::PREAMBLE.as_slice();
    let mut unknown = preamble.to_vec();
    unknown.extend_from_slice(&[0; 20]);
    for first in [unknown.as_slice(), preamble] {
        let mut lane = UnixStream::connect(&path).await.unwrap();
        lane.write_all(first).await.unwrap();
        lane.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = soon("the end", lane.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{answer:?}");
    }
    let listener = listen().await;
    exchange(&world, &listener, 3 * MIB, 100, 60_000).await;
}
