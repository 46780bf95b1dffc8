//! Either half may go at any moment.
#![allow(missing_docs)]

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use odyn_link::{End, HostLink, HostLinkConfig, LinkState, OpenError, ServerConfig};
use odyn_proto::{Endpoint, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use common::{Host, LIMIT, World, down, is_reset, listen, socket_path, soon, up};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_resets_its_flows_at_once_and_a_new_one_is_found() {
    let World {
        dir: _dir,
        endpoint,
        host,
        client,
    } = World::new().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let mut apps = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..16 {
        apps.push(common::App::connect(&client, address).await);
        servers.push(soon("accept", listener.accept()).await.unwrap().0);
    }
    // One of them with bytes in every buffer.
    apps[0].tcp.write_all(&vec![0; 100_000]).await.unwrap();
    host.killed().await;
    for mut app in apps {
        let read = soon("reset", app.tcp.read(&mut [0; 1])).await;
        assert!(is_reset(&read), "{read:?}");
        assert_eq!(soon("end", app.relay).await.unwrap(), End::LinkLost);
    }
    for mut server in servers {
        let read = soon("reset", async {
            let mut buf = vec![0; 65_536];
            loop {
                match server.read(&mut buf).await {
                    Ok(n) if n > 0 => {}
                    other => return other,
                }
            }
        })
        .await;
        assert!(is_reset(&read), "{read:?}");
    }
    down(&client).await;

    let _host = Host::start(&endpoint, ServerConfig::default());
    up(&client).await;
    let mut app = common::App::connect(&client, address).await;
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    server.write_all(b"again").await.unwrap();
    let mut got = [0; 5];
    soon("bytes", app.tcp.read_exact(&mut got)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_fin_that_came_before_the_link_was_lost_are_delivered() {
    let World {
        dir: _dir,
        host,
        client,
        ..
    } = World::new().await;
    let listener = listen().await;
    let mut app = common::App::connect(&client, listener.local_addr().unwrap()).await;
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    app.tcp.write_all(b"the last words").await.unwrap();
    app.tcp.shutdown().await.unwrap();
    let mut first = [0; 1];
    soon("first byte", server.read_exact(&mut first))
        .await
        .unwrap();
    drop(client);
    let mut got = String::new();
    soon("the rest", server.read_to_string(&mut got))
        .await
        .unwrap();
    assert_eq!(got, "he last words");
    drop(host);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drains_ends_no_flow_and_takes_no_new_one() {
    let World {
        dir: _dir,
        endpoint,
        host,
        client,
    } = World::new().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let mut app = common::App::connect(&client, address).await;
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    host.stop(LIMIT);
    down(&client).await;
    for _ in 0..3 {
        app.tcp.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        soon("ping", server.read_exact(&mut got)).await.unwrap();
        server.write_all(b"pong").await.unwrap();
        soon("pong", app.tcp.read_exact(&mut got)).await.unwrap();
    }
    let _next = Host::start(&endpoint, ServerConfig::default());
    up(&client).await;
    common::App::connect(&client, address).await;
    drop((app.tcp, server));
    assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
    soon("the old host's end", host.tasks.wait()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_of_the_hosts_drain_time_flows_are_cut() {
    let world = World::new().await;
    let listener = listen().await;
    let mut app = world.connect(listener.local_addr().unwrap()).await;
    let (_server, _) = soon("accept", listener.accept()).await.unwrap();
    world.host.stop(Duration::ZERO);
    let read = soon("reset", app.tcp.read(&mut [0; 1])).await;
    assert!(is_reset(&read), "{read:?}");
    soon("the host's end", world.host.tasks.wait()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_drain_waits_for_its_flows() {
    let world = World::new().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let mut app = world.connect(address).await;
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    let client = world.client.clone();
    client.begin_drain(common::LIMIT);
    let draining = tokio::spawn(async move { client.drain(pending()).await });
    app.tcp.write_all(b"x").await.unwrap();
    let mut got = [0; 1];
    soon("byte", server.read_exact(&mut got)).await.unwrap();
    drop((app, server));
    assert_eq!(soon("drain", draining).await.unwrap().cut, 0);
    let target = Target::address(address.ip(), address.port());
    let opened = world.client.connect_tcp(&target).await;
    assert!(matches!(opened, Err(OpenError::Closing)), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_drain_cuts_what_does_not_end() {
    let world = World::new().await;
    let listener = listen().await;
    let app = world.connect(listener.local_addr().unwrap()).await;
    let (mut server, _) = soon("accept", listener.accept()).await.unwrap();
    world.client.begin_drain(Duration::ZERO);
    let drained = soon("drain", world.client.drain(pending())).await;
    assert_eq!((drained.cut, drained.undelivered), (1, 0));
    assert_eq!(
        soon("end", app.relay).await.unwrap(),
        End::Cut { undelivered: 0 }
    );
    let read = soon("reset", server.read(&mut [0; 1])).await;
    assert!(is_reset(&read), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_host_opening_fails_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = odyn_proto::Endpoint::Unix {
        path: dir.path().join("none"),
    };
    let mut config = HostLinkConfig::default();
    config.open_wait = Duration::from_millis(10);
    let client = odyn_link::HostLink::new(endpoint, config);
    let mut state = client.state();
    soon(
        "the reason",
        state.wait_for(|s| matches!(s, LinkState::Down(r) if r.contains("os error"))),
    )
    .await
    .unwrap();
    let opened = client.connect_tcp(&Target::host_loopback(80)).await;
    assert!(
        matches!(&opened, Err(OpenError::LinkDown(r)) if r.contains("No such file")),
        "{opened:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_an_answer_are_sent_again_over_the_next_link() {
    let World {
        dir: _dir,
        endpoint,
        host,
        client,
    } = World::new().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    host.dialler.stalled.store(true, Ordering::Release);
    let target = Target::address(address.ip(), address.port());
    let opening = tokio::spawn({
        let (client, target) = (client.clone(), target.clone());
        async move { client.connect_tcp(&target).await }
    });
    let opening_udp = tokio::spawn({
        let client = client.clone();
        async move { client.connect_udp(&target).await }
    });
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.dns(Bytes::from_static(&[2, 3])).await }
    });
    host.asked(3).await;
    host.killed().await;
    let _host = Host::start(&endpoint, ServerConfig::default());
    soon("the answer", asking).await.unwrap().unwrap();
    soon("the UDP flow", opening_udp).await.unwrap().unwrap();
    let opened = soon("the flow", opening).await.unwrap().unwrap();
    assert_eq!(opened.dialled, Some(address));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_every_host_dies_of_fails() {
    let World {
        dir: _dir,
        endpoint,
        mut host,
        client,
    } = World::new().await;
    host.dialler.stalled.store(true, Ordering::Release);
    let opening = tokio::spawn({
        let client = client.clone();
        async move { client.connect_tcp(&Target::host_loopback(80)).await }
    });
    tokio::pin!(opening);
    let mut dead = 0;
    let opened = loop {
        tokio::select! {
            biased;
            opened = &mut opening => break opened.unwrap(),
            () = host.asked(1) => {}
        }
        host.killed().await;
        dead += 1;
        host = Host::stalled(&endpoint);
    };
    assert!(matches!(opened, Err(OpenError::LinkLost)), "{opened:?}");
    // One more when it went to a host that was dialled before the end of the last was noticed.
    assert!(matches!(dead, 3 | 4), "{dead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_place_of_the_pool_comes_back() {
    let World {
        dir: _dir,
        endpoint,
        mut host,
        client,
    } = World::new().await;
    for _ in 0..5 {
        host.killed().await;
        down(&client).await;
        host = Host::start(&endpoint, ServerConfig::default());
        // One of the tasks accepts.
        let wanted = 1 + HostLinkConfig::default().connections;
        soon("all connections", async {
            while host.tasks.len() != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_swallowed_is_given_up_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(&dir);
    let listener = UnixListener::bind(&path).unwrap();
    let mut config = HostLinkConfig::default();
    config.tuning.handshake_timeout = Duration::from_secs(3600);
    let endpoint = Endpoint::Unix { path: path.clone() };
    let places = config.connections;
    let client = HostLink::new(endpoint.clone(), config);
    let mut held = Vec::new();
    for _ in 0..places {
        held.push(soon("a dial", listener.accept()).await.unwrap());
    }
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    let _host = Host::start(&endpoint, ServerConfig::default());
    let mut state = client.state();
    soon(
        "the link within the handshake's time-out",
        state.wait_for(|state| *state == LinkState::Up),
    )
    .await
    .unwrap();
}

/// Dials of a client in two seconds, to a host that does this with each connection.
async fn dials(speaks: bool) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix {
        path: socket_path(&dir),
    };
    let listener = UnixListener::bind(socket_path(&dir)).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let accepting = tokio::spawn({
        let (count, stop) = (Arc::clone(&count), Arc::clone(&stop));
        async move {
            while !stop.load(Ordering::Acquire) {
                let Ok((socket, _)) = listener.accept().await else {
                    continue;
                };
                count.fetch_add(1, Ordering::AcqRel);
                if speaks {
                    // Up to the answer of the first PING, and a little more.
                    let mut connection = h2::server::Builder::new()
                        .enable_connect_protocol()
                        .handshake::<_, Bytes>(socket)
                        .await
                        .unwrap();
                    tokio::spawn(async move {
                        let limit = Duration::from_millis(5);
                        let _ = tokio::time::timeout(limit, connection.accept()).await;
                    });
                }
            }
        }
    });
    let client = HostLink::new(endpoint, HostLinkConfig::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Release);
    soon("the last dial", accepting).await.unwrap();
    drop(client);
    count.load(Ordering::Acquire)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drops_its_connections_is_dialled_seldom() {
    // Four places, at most every 125 ms after the first few. A slow machine dials less.
    for speaks in [false, true] {
        let count = dials(speaks).await;
        assert!((8..120).contains(&count), "{count} dials, {speaks}");
    }
}
