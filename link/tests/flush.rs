//! At the end of a guest: what its program wrote arrives, or is told.
#![allow(missing_docs)]

mod common;

use std::future::pending;
use std::time::{Duration, Instant};

use odyn_link::drain::{GuardKind, Phase};
use odyn_link::{Drained, End, HostLink, HostLinkConfig, ServerConfig};
use odyn_proto::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use common::{App, Host, LIMIT, World, down, is_reset, listen, soon};

const MIB: usize = 1024 * 1024;

/// A flow whose two ends the test holds.
async fn flow() -> (World, App, TcpStream) {
    let world = World::new().await;
    let listener = listen().await;
    let app = world.connect(listener.local_addr().unwrap()).await;
    let (server, _) = soon("accept", listener.accept()).await.unwrap();
    (world, app, server)
}

fn drain(client: &HostLink, limit: Duration) -> JoinHandle<Drained> {
    let client = client.clone();
    client.begin_drain(limit);
    tokio::spawn(async move { client.drain(pending()).await })
}

/// Writes and closes, as a program does that exits: returns when the kernel has all of it.
async fn write_and_exit(mut tcp: TcpStream, bytes: usize) {
    tcp.write_all(&vec![7; bytes]).await.unwrap();
}

async fn all_of(server: &mut TcpStream) -> usize {
    let mut got = Vec::new();
    soon("the bytes and their end", server.read_to_end(&mut got))
        .await
        .unwrap();
    got.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_closes_does_not_hold_the_exit() {
    let (mut world, app, mut server) = flow().await;
    write_and_exit(app.tcp, 100_000).await;
    let drained = soon("drain", drain(&world.client, LIMIT)).await.unwrap();
    assert_eq!((drained.cut, drained.earlier.len()), (0, 0));
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
    // Nothing was read before: the confirmation is the kernel's.
    assert_eq!(all_of(&mut server).await, 100_000);
    let report = soon("report", world.host.ended.recv()).await.unwrap();
    assert_eq!((report.end, report.sent), (End::Closed, 100_000));
    soon("close", world.client.close(LIMIT)).await;
    assert_eq!(world.client.drain_watch().step().phase, Phase::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_waits_for_a_slow_reader() {
    let (world, app, mut server) = flow().await;
    let total = 64 * MIB;
    let writing = tokio::spawn(write_and_exit(app.tcp, total));
    // More than all buffers hold: the program can't have exited yet.
    let mut first = vec![0; 16 * MIB];
    soon("bytes", server.read_exact(&mut first)).await.unwrap();
    let draining = drain(&world.client, LIMIT);
    assert!(!draining.is_finished());
    assert_eq!(all_of(&mut server).await, total - first.len());
    soon("the program", writing).await.unwrap();
    assert_eq!(soon("drain", draining).await.unwrap().cut, 0);
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_holds_is_waited_for() {
    let (world, app, mut server) = flow().await;
    let writing = tokio::spawn(write_and_exit(app.tcp, 32 * MIB));
    soon("the first byte", server.read_exact(&mut [0; 1]))
        .await
        .unwrap();
    let draining = drain(&world.client, LIMIT);
    // Slowly, until the guest has nothing more and only the host knows that something is missing.
    let mut left = 32 * MIB - 1;
    let mut buf = vec![0; 64 * 1024];
    while world.client.drain_watch().step().phase < Phase::Flushing {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if let Ok(read) = server.try_read(&mut buf) {
            left -= read;
        }
    }
    assert!(left > 0, "nothing was left to be flushed");
    assert!(!draining.is_finished());
    assert_eq!(all_of(&mut server).await, left);
    soon("the program", writing).await.unwrap();
    assert_eq!(soon("drain", draining).await.unwrap().cut, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_peer_sends_late_destroys_nothing() {
    let (world, app, mut server) = flow().await;
    // As much as fits, so that the last of it is in the program's own socket only.
    let mut written = 0;
    let junk = vec![7; 64 * 1024];
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(300), async {
        app.tcp.writable().await.unwrap();
        app.tcp
            .try_write(&junk)
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::WouldBlock => Ok(0),
                _ => Err(error),
            })
    })
    .await
    {
        written += n;
    }
    drop(app.tcp);
    let draining = drain(&world.client, LIMIT);
    soon("draining", world.client.drain_watch().draining()).await;
    // Data for a socket whose process is gone is answered with a reset.
    server.write_all(b"are you still there?").await.unwrap();
    assert_eq!(all_of(&mut server).await, written);
    assert_eq!(soon("drain", draining).await.unwrap().cut, 0);
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_reads_is_cut_and_its_bytes_are_told() {
    let (world, app, mut server) = flow().await;
    let writing = tokio::spawn(write_and_exit(app.tcp, 64 * MIB));
    // The first byte is there: none of the time of the drain is needed for that. (readable() may be wrong.)
    soon("a byte", server.peek(&mut [0; 1])).await.unwrap();
    let limit = Duration::from_millis(500);
    let start = Instant::now();
    let drained = soon("drain", drain(&world.client, limit)).await.unwrap();
    assert!(start.elapsed() >= limit);
    assert_eq!(drained.cut, 1);
    let (taken, _) = app.counters.get();
    let end = soon("end", app.relay).await.unwrap();
    let End::Cut { undelivered } = end else {
        panic!("{end:?}");
    };
    assert_eq!(undelivered, drained.undelivered);
    // What was acknowledged can be read; what comes behind it is the host's grace; and then
    // there is no orderly end.
    let mut got = Vec::new();
    let read = soon("the rest", server.read_to_end(&mut got)).await;
    assert!(is_reset(&read), "{read:?}");
    let acknowledged = taken.checked_sub(undelivered).expect("no more than taken");
    assert!(
        undelivered > 0 && acknowledged > 0 && acknowledged <= got.len() as u64,
        "taken {taken}, acknowledged {acknowledged}, read {}",
        got.len()
    );
    assert!(
        soon("the program", writing).await.is_err(),
        "its write failed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn being_told_to_stop_again_ends_the_drain() {
    let (world, app, server) = flow().await;
    let (force, forced) = oneshot::channel::<()>();
    let client = world.client.clone();
    client.begin_drain(LIMIT);
    let draining = tokio::spawn(async move {
        client
            .drain(async {
                let _ = forced.await;
            })
            .await
    });
    soon("draining", world.client.drain_watch().draining()).await;
    force.send(()).unwrap();
    assert_eq!(soon("drain", draining).await.unwrap().cut, 1);
    assert_eq!(
        soon("end", app.relay).await.unwrap(),
        End::Cut { undelivered: 0 }
    );
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_flow_left_undelivered_is_told() {
    let (world, app, mut server) = flow().await;
    // It does not read, and ends its own direction: for the guest the flow is over.
    server.shutdown().await.unwrap();
    write_and_exit(app.tcp, 3 * MIB).await;
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
    let limit = Duration::from_millis(300);
    let drained = soon("drain", drain(&world.client, limit)).await.unwrap();
    assert_eq!(drained.cut, 0);
    // Where a kernel takes all of it at once there is nothing to tell.
    let told: u64 = drained.earlier.iter().map(|flow| flow.pending).sum();
    let mut got = Vec::new();
    soon("the rest", server.read_to_end(&mut got))
        .await
        .unwrap();
    assert_eq!(got.len(), 3 * MIB, "told {told}");
    assert_eq!(drained.earlier.len(), usize::from(told > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_being_opened_survives_a_new_dial() {
    let mut config = HostLinkConfig::default();
    // Shorter than the host is away.
    config.open_wait = Duration::from_millis(100);
    let World {
        dir: _dir,
        endpoint,
        host,
        client,
    } = World::with(config, ServerConfig::default()).await;
    host.killed().await;
    down(&client).await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let busy = client.drain_watch().guard(GuardKind::Handover);
    let draining = drain(&client, LIMIT);
    soon("draining", client.drain_watch().draining()).await;
    let opening = tokio::spawn({
        let client = client.clone();
        async move {
            let target = Target::address(address.ip(), address.port());
            let opened = client.connect_tcp(&target).await.unwrap();
            drop(busy);
            App::relayed(opened).await
        }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());
    let _host = Host::start(&endpoint, ServerConfig::default());
    let app = soon("opening", opening).await.unwrap();
    write_and_exit(app.tcp, 200_000).await;
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    assert_eq!(all_of(&mut server).await, 200_000);
    assert_eq!(soon("drain", draining).await.unwrap().cut, 0);
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_half_that_leaves_at_the_same_time_delivers_what_it_has() {
    let (world, app, mut server) = flow().await;
    write_and_exit(app.tcp, 2 * MIB).await;
    world.host.stop(LIMIT);
    down(&world.client).await;
    let drained = soon("drain", drain(&world.client, LIMIT)).await.unwrap();
    assert_eq!(drained.cut, 0);
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
    soon("close", world.client.close(LIMIT)).await;
    assert_eq!(all_of(&mut server).await, 2 * MIB);
    soon("the host's end", world.host.tasks.wait()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_dies_in_the_flush_is_told_as_lost() {
    let (world, app, server) = flow().await;
    let writing = tokio::spawn(write_and_exit(app.tcp, 64 * MIB));
    let draining = drain(&world.client, LIMIT);
    soon("draining", world.client.drain_watch().draining()).await;
    world.host.killed().await;
    assert_eq!(soon("end", app.relay).await.unwrap(), End::LinkLost);
    soon("drain", draining).await.unwrap();
    let _ = writing.await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_flush_takes_no_time() {
    let world = World::new().await;
    let start = Instant::now();
    soon("drain", drain(&world.client, LIMIT)).await.unwrap();
    soon("close", world.client.close(LIMIT)).await;
    assert!(start.elapsed() < Duration::from_secs(20), "it waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_half_cuts_at_its_deadline_and_says_what_was_lost() {
    let mut world = World::new().await;
    let listener = listen().await;
    let mut app = world.connect(listener.local_addr().unwrap()).await;
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    let writing = tokio::spawn(async move {
        let _ = app.tcp.write_all(&vec![7; 64 * MIB]).await;
    });
    soon("the first byte", server.read_exact(&mut [0; 1]))
        .await
        .unwrap();
    world.host.stop(Duration::from_millis(300));
    let report = soon("report", world.host.ended.recv()).await.unwrap();
    let End::Cut { undelivered } = report.end else {
        panic!("{report:?}");
    };
    let mut got = vec![0];
    let read = soon("the rest", server.read_to_end(&mut got)).await;
    assert!(is_reset(&read), "{read:?}");
    assert!(undelivered > 0);
    soon("the host's end", world.host.tasks.wait()).await;
    soon("the program", writing).await.unwrap();
}
