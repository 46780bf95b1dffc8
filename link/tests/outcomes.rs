//! What the guest learns of a dial that failed.
#![allow(missing_docs)]

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;

use odyn_link::{FlowLimit, HostLinkConfig, OpenError, ServerConfig};
use odyn_proto::{Refusal, Target, TargetHost};
use tokio::net::TcpSocket;

use common::{World, listen, soon};

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_arrives_as_itself() {
    let world = World::new().await;
    let target = Target::address(Ipv4Addr::LOCALHOST, 9);
    for refusal in Refusal::ALL {
        *world.host.dialler.refuse.lock().unwrap() = Some(refusal);
        let opened = soon("refusal", world.client.connect_tcp(&target)).await;
        assert!(
            matches!(opened, Err(OpenError::Refused(r)) if r == refusal),
            "{opened:?}"
        );
    }
    assert_eq!(world.client.flows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_connection_refused() {
    let world = World::new().await;
    // Held without listening: another test might get a free port.
    let held = TcpSocket::new_v4().unwrap();
    held.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = held.local_addr().unwrap().port();
    let opened = soon(
        "dial",
        world.client.connect_tcp(&Target::host_loopback(port)),
    )
    .await;
    assert!(
        matches!(opened, Err(OpenError::Refused(Refusal::ConnectionRefused))),
        "{opened:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_cannot_be_asked_for_do_not_cross_the_link() {
    let world = World::new().await;
    for target in [
        Target::address(Ipv4Addr::LOCALHOST, 0),
        Target {
            host: TargetHost::Addresses(vec![]),
            port: 1,
        },
    ] {
        assert!(matches!(
            world.client.connect_tcp(&target).await,
            Err(OpenError::Target(_))
        ));
        assert!(matches!(
            world.client.connect_udp(&target).await,
            Err(OpenError::Target(_))
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_limit_of_flows_is_a_refusal_and_room_comes_back() {
    let mut server = ServerConfig::default();
    server.flows = Some(Arc::new(FlowLimit::new(1)));
    let mut world = World::with(HostLinkConfig::default(), server).await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let target = Target::address(address.ip(), address.port());
    let one = world.connect(address).await;
    let opened = soon("refusal", world.client.connect_tcp(&target)).await;
    assert!(
        matches!(opened, Err(OpenError::Refused(Refusal::LimitReached))),
        "{opened:?}"
    );
    drop((one.tcp, listener));
    soon("report", world.host.ended.recv()).await.unwrap();
    let listener = listen().await;
    world.connect(listener.local_addr().unwrap()).await;
}
