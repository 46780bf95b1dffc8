//! As many flows as there are descriptors for. Alone in its process: other tests take none of them.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;

use odyn_link::{End, HostLinkConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use common::{App, World, echo_server, soon};

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_flows_at_once() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(
        hard >= 19_900,
        "this test needs 19 900 file descriptors, the limit is {hard}"
    );

    // Lanes would take descriptors of their own.
    let mut config = HostLinkConfig::default();
    config.tuning.max_lanes = 16;
    let world = Arc::new(World::with(config, ServerConfig::default()).await);
    let server = echo_server().await;
    let target = odyn_proto::Target::address(server.ip(), server.port());
    let gate = Arc::new(Semaphore::new(200));
    // Four sockets each: app, guest, host, server.
    let mut opening = Vec::new();
    for _ in 0..4800 {
        let (world, gate) = (Arc::clone(&world), Arc::clone(&gate));
        opening.push(tokio::spawn(async move {
            let _turn = gate.acquire().await.unwrap();
            world.connect(server).await
        }));
    }
    let mut apps: Vec<App> = Vec::new();
    for opened in opening {
        apps.push(soon("opening", opened).await.unwrap());
    }
    // And without the first two.
    let mut bare = Vec::new();
    for _ in 0..200 {
        bare.push(
            soon("opening", world.client.connect_tcp(&target))
                .await
                .unwrap(),
        );
    }
    assert_eq!(world.client.flows(), 5000);
    for (i, app) in apps.iter_mut().enumerate() {
        app.tcp.write_all(&(i as u32).to_be_bytes()).await.unwrap();
    }
    for (i, app) in apps.iter_mut().enumerate() {
        assert_eq!(soon("echo", app.tcp.read_u32()).await.unwrap(), i as u32);
    }
    for app in apps {
        drop(app.tcp);
        assert_eq!(soon("end", app.relay).await.unwrap(), End::Closed);
    }
    drop(bare);
    assert_eq!(world.client.flows(), 0);
}
