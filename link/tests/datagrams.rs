//! UDP flows.
#![allow(missing_docs)]

mod common;

use std::net::Ipv4Addr;

use odyn_link::{DatagramError, Datagrams, End};
use odyn_proto::Target;
use tokio::net::UdpSocket;

use common::{LIMIT, World, soon};

async fn flow(world: &World) -> (Datagrams, UdpSocket) {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    let target = Target::address(address.ip(), address.port());
    let opened = soon("opening", world.client.connect_udp(&target))
        .await
        .unwrap();
    assert_eq!(opened.dialled, Some(address));
    (opened.flow, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_goes_there_and_back() {
    let mut world = World::new().await;
    let (mut flow, server) = flow(&world).await;
    let mut buf = vec![0; 70_000];
    let sizes = [0, 1, 1200, 16_383, 65_507];
    for size in sizes {
        let sent: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        assert!(flow.send(&sent).unwrap());
        let (len, guest) = soon("there", server.recv_from(&mut buf)).await.unwrap();
        assert!(buf[..len] == sent, "{size}");
        server.send_to(&sent, guest).await.unwrap();
        let back = soon("back", flow.recv()).await.unwrap().unwrap();
        assert!(back == sent, "{size}");
    }
    assert!(matches!(
        flow.send(&buf[..65_508]),
        Err(DatagramError::TooLong(65_508))
    ));
    drop(flow);
    let report = soon("report", world.host.ended.recv()).await.unwrap();
    let total = sizes.iter().sum::<usize>() as u64;
    assert_eq!((report.sent, report.received), (total, total));
}

/// Several at once, as they come: of one size, of many, with empty ones between, and long ones.
#[tokio::test(flavor = "multi_thread")]
async fn batches_stay_datagrams_and_in_order() {
    let mut world = World::new().await;
    let (mut flow, server) = flow(&world).await;
    let mut buf = vec![0; 70_000];
    let mut total = 0;
    for sizes in [
        vec![200; 150],
        vec![200, 200, 0, 200, 0, 0, 100, 200],
        vec![1, 2, 3, 3, 3, 2, 1, 1],
        vec![1472, 1472, 1473, 1473, 9000, 9000, 9000],
        vec![30_000, 30_000, 30_000],
        vec![65_507, 0],
    ] {
        let of = |(number, size): (usize, &usize)| vec![number as u8; *size];
        let sent: Vec<Vec<u8>> = sizes.iter().enumerate().map(of).collect();
        total += sizes.iter().sum::<usize>() as u64;
        let taken = flow.send_batch(sent.iter().map(|one| &**one)).unwrap();
        let bytes = sizes.iter().sum::<usize>() as u64;
        assert_eq!((taken.datagrams, taken.bytes), (sizes.len(), bytes));
        let mut guest = None;
        for datagram in &sent {
            let (len, from) = soon("there", server.recv_from(&mut buf)).await.unwrap();
            assert!(buf[..len] == *datagram, "{sizes:?}");
            guest = Some(from);
        }
        for datagram in &sent {
            server.send_to(datagram, guest.unwrap()).await.unwrap();
        }
        let mut back = Vec::new();
        while back.len() < sent.len() {
            assert!(soon("back", flow.recv_batch(&mut back)).await.unwrap());
        }
        assert!(back == sent, "{sizes:?}");
    }
    let long = [vec![7; 65_508], vec![8; 10]];
    let taken = flow.send_batch(long.iter().map(|one| &**one)).unwrap();
    assert_eq!((taken.datagrams, taken.bytes), (1, 10));
    let (len, _) = soon("there", server.recv_from(&mut buf)).await.unwrap();
    assert_eq!(buf[..len], [8; 10]);
    drop(flow);
    let report = soon("report", world.host.ended.recv()).await.unwrap();
    assert_eq!((report.sent, report.received), (total + 10, total));
}

/// What ends a flow is told behind what came before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_before_the_end_is_given_out_first() {
    let world = World::new().await;
    let (mut flow, server) = flow(&world).await;
    flow.send(b"hello").unwrap();
    let mut buf = [0; 10];
    let (_, guest) = soon("there", server.recv_from(&mut buf)).await.unwrap();
    for _ in 0..3 {
        server.send_to(b"bye", guest).await.unwrap();
    }
    drop(server);
    // The host learns from its next datagram that no socket is there.
    soon("the end", async {
        let mut got = Vec::new();
        loop {
            match flow.recv_batch(&mut got).await {
                Ok(true) if got.len() == 3 => {
                    let _ = flow.send(b"anyone?");
                }
                Ok(true) => {}
                Ok(false) => panic!("not refused"),
                Err(error) => {
                    assert!(matches!(error, DatagramError::Refused), "{error:?}");
                    assert_eq!(got, ["bye"; 3]);
                    return;
                }
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_icmp_error_reaches_the_guest() {
    let mut world = World::new().await;
    let (mut flow, server) = flow(&world).await;
    drop(server);
    // The first is answered with port unreachable.
    flow.send(b"anyone?").unwrap();
    let received = soon("refusal", flow.recv()).await;
    assert!(
        matches!(received, Err(DatagramError::Refused)),
        "{received:?}"
    );
    assert!(matches!(flow.send(b"x"), Err(DatagramError::Refused)));
    assert_eq!(
        soon("report", world.host.ended.recv()).await.unwrap().end,
        End::ResetBySocket
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_and_counts() {
    let world = World::new().await;
    let (flow, _server) = flow(&world).await;
    let (mut sender, _receiver) = flow.split();
    let big = vec![0; 65_507];
    // The test's thread does not let the link write.
    let sent = (0..1000).filter(|_| sender.send(&big).unwrap()).count();
    assert!(sent >= 1, "an empty queue takes any datagram");
    assert_eq!(sent as u64 + sender.dropped(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_link_ends_it() {
    let World {
        host,
        client,
        dir: _dir,
        ..
    } = World::new().await;
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    let target = Target::address(address.ip(), address.port());
    let mut flow = soon("opening", client.connect_udp(&target))
        .await
        .unwrap()
        .flow;
    host.killed().await;
    let received = soon("end", flow.recv()).await;
    assert!(
        matches!(received, Err(DatagramError::LinkLost)),
        "{received:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_halves_work_apart_and_dropping_the_sender_ends_the_flow() {
    let mut world = World::new().await;
    let (flow, server) = flow(&world).await;
    let (mut sender, mut receiver) = flow.split();
    sender.send(b"a").unwrap();
    let mut buf = [0; 10];
    let (_, guest) = soon("there", server.recv_from(&mut buf)).await.unwrap();
    server.send_to(b"b", guest).await.unwrap();
    assert_eq!(soon("back", receiver.recv()).await.unwrap().unwrap(), "b");
    drop(sender);
    assert_eq!(
        soon("report", world.host.ended.recv()).await.unwrap().end,
        End::Closed
    );
    assert!(soon("end", receiver.recv()).await.unwrap().is_none());
    assert_eq!(world.client.flows(), 1, "the receiver still holds it");
    drop(receiver);
    assert_eq!(world.client.flows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_half_that_drains_is_not_held_by_a_silent_flow() {
    let mut world = World::new().await;
    let (mut flow, server) = flow(&world).await;
    world.host.stop(LIMIT);
    // One that is used goes on.
    let mut buf = [0; 10];
    for _ in 0..5 {
        flow.send(b"ping").unwrap();
        let (_, guest) = soon("there", server.recv_from(&mut buf)).await.unwrap();
        server.send_to(b"pong", guest).await.unwrap();
        assert_eq!(soon("back", flow.recv()).await.unwrap().unwrap(), "pong");
    }
    // The host asks for its end, and sends on what comes until then.
    assert!(soon("the end", flow.recv()).await.unwrap().is_none());
    flow.send(b"last").unwrap();
    let (len, _) = soon("there", server.recv_from(&mut buf)).await.unwrap();
    assert_eq!(&buf[..len], b"last");
    drop(flow);
    let report = soon("report", world.host.ended.recv()).await.unwrap();
    assert_eq!((report.end, report.sent), (End::Closed, 24));
    soon("the host's end", world.host.tasks.wait()).await;
}
