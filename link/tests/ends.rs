//! How flows end: FIN, half-close and RST are carried both ways, and nothing that was written
//! before gets lost.
#![allow(missing_docs)]

mod common;

use odyn_link::End;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use common::{World, is_reset, listen, soon};

/// A flow whose two ends the test holds.
async fn flow() -> (World, common::App, tokio::net::TcpStream) {
    let world = World::new().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let app = world.connect(address).await;
    assert_eq!(app.dialled, Some(address));
    let (server, _) = soon("accept", listener.accept()).await.unwrap();
    (world, app, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_fin_first_and_the_answer_after_it() {
    let (mut world, mut app, mut server) = flow().await;
    app.tcp.write_all(b"question").await.unwrap();
    app.tcp.shutdown().await.unwrap();
    let mut got = String::new();
    soon("question", server.read_to_string(&mut got))
        .await
        .unwrap();
    assert_eq!(got, "question");
    server.write_all(b"answer after EOF").await.unwrap();
    drop(server);
    got.clear();
    soon("answer", app.tcp.read_to_string(&mut got))
        .await
        .unwrap();
    assert_eq!(got, "answer after EOF");
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
    assert_eq!(app.counters.get(), (8, 16));
    let report = soon("report", world.host.ended.recv()).await.unwrap();
    assert_eq!(
        (report.end, report.sent, report.received),
        (End::Closed, 8, 16)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_fin_first_and_the_question_after_it() {
    let (mut world, mut app, mut server) = flow().await;
    server.write_all(b"banner").await.unwrap();
    server.shutdown().await.unwrap();
    let mut got = String::new();
    soon("banner", app.tcp.read_to_string(&mut got))
        .await
        .unwrap();
    assert_eq!(got, "banner");
    app.tcp.write_all(b"late").await.unwrap();
    drop(app.tcp);
    got.clear();
    soon("late", server.read_to_string(&mut got)).await.unwrap();
    assert_eq!(got, "late");
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
    assert_eq!(
        soon("report", world.host.ended.recv()).await.unwrap().end,
        End::Closed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_reset_reaches_the_app() {
    let (_world, mut app, server) = flow().await;
    server.set_zero_linger().unwrap();
    drop(server);
    let read = soon("reset", app.tcp.read(&mut [0; 1])).await;
    assert!(is_reset(&read), "{read:?}");
    assert_eq!(soon("end", app.relay).await.unwrap(), End::ResetByPeer);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apps_reset_reaches_the_server() {
    let (mut world, app, mut server) = flow().await;
    app.tcp.set_zero_linger().unwrap();
    drop(app.tcp);
    let read = soon("reset", server.read(&mut [0; 1])).await;
    assert!(is_reset(&read), "{read:?}");
    assert_eq!(soon("end", app.relay).await.unwrap(), End::ResetBySocket);
    assert_eq!(
        soon("report", world.host.ended.recv()).await.unwrap().end,
        End::ResetByPeer
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_does_not_overtake_the_bytes_before_it() {
    let (mut world, mut app, mut server) = flow().await;
    let sent: Vec<u8> = (0..32 * 1024).map(|i| i as u8).collect();
    server.write_all(&sent).await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    // The host has read the bytes and the reset before the app reads anything.
    assert_eq!(
        soon("report", world.host.ended.recv()).await.unwrap().end,
        End::ResetBySocket
    );
    let mut got = vec![0; sent.len()];
    soon("bytes", app.tcp.read_exact(&mut got)).await.unwrap();
    assert!(got == sent);
    let read = soon("reset", app.tcp.read(&mut [0; 1])).await;
    assert!(is_reset(&read), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_closed_properly_is_read_to_its_end_although_it_takes_no_more() {
    let (mut world, mut app, mut server) = flow().await;
    let sent: Vec<u8> = (0..1024 * 1024).map(|i| (i / 7) as u8).collect();
    server.write_all(&sent).await.unwrap();
    // close() that lingers returns when the host's kernel has all of it: from here on it is ours.
    let lingered = tokio::task::spawn_blocking(move || {
        let server = server.into_std().unwrap();
        socket2::SockRef::from(&server)
            .set_linger(Some(common::LIMIT))
            .unwrap();
        drop(server);
    });
    soon("the server's close", lingered).await.unwrap();
    // No socket takes this any more: the kernel answers with a RST.
    app.tcp.write_all(b"late").await.unwrap();
    assert_eq!(
        soon("report", world.host.ended.recv()).await.unwrap().end,
        End::ResetBySocket
    );
    let mut got = vec![0; sent.len()];
    soon("what was sent before", app.tcp.read_exact(&mut got))
        .await
        .unwrap();
    assert!(got == sent);
    // As without us, the end is a FIN or the reset.
    let end = soon("end", app.tcp.read(&mut [0; 1])).await;
    assert!(is_reset(&end) || matches!(end, Ok(0)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_resets_the_other_side() {
    let world = World::new().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let target = odyn_proto::Target::address(address.ip(), address.port());
    let opened = world.client.connect_tcp(&target).await.unwrap();
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    drop(opened);
    let read = soon("reset", server.read(&mut [0; 1])).await;
    assert!(is_reset(&read), "{read:?}");
}
