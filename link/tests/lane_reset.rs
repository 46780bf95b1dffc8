//! A program that resets its connection at its end, on a lane.
#![allow(missing_docs)]

mod common;

use std::future::pending;
use std::time::Duration;

use odyn_link::{End, HostLinkConfig, LaneMode, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use common::{LIMIT, World, is_reset, listen, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_at_the_end_of_the_program_is_passed_on_behind_its_bytes() {
    let mut client = HostLinkConfig::default();
    client.tuning.lanes = LaneMode::Always;
    let mut server = ServerConfig::default();
    // Longer than the test: the lane's end is what the host has to see.
    for tuning in [&mut client.tuning, &mut server.tuning] {
        tuning.reset_grace = 10 * LIMIT;
    }
    let world = World::exactly(client, server).await;
    let listener = listen().await;
    let mut app = world.connect(listener.local_addr().unwrap()).await;
    let (mut peer, _) = soon("accept", listener.accept()).await.unwrap();
    let bytes = vec![7; 1 << 20];
    let mut got = vec![0; bytes.len()];
    let (sent, read) = soon("the bytes", async {
        tokio::join!(app.tcp.write_all(&bytes), peer.read_exact(&mut got))
    })
    .await;
    sent.unwrap();
    read.unwrap();
    soon("the lane", async {
        while world.lanes_in_use() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let client = world.client.clone();
    client.begin_drain(LIMIT);
    let draining = tokio::spawn(async move { client.drain(pending()).await });
    app.tcp.set_zero_linger().unwrap();
    drop(app.tcp);
    let end = soon("the reset", peer.read_to_end(&mut Vec::new())).await;
    assert!(is_reset(&end), "{end:?}");
    assert_eq!(soon("end", app.relay).await.unwrap(), End::ResetBySocket);
    assert_eq!(soon("drain", draining).await.unwrap().cut, 0);
}
