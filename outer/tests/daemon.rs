//! The daemon as it is built: started, used over its socket, stopped.
#![allow(missing_docs)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use odyn_link::{End, LinkState, OpenError};
use odyn_proto::{Refusal, Target};
use tokio::net::UdpSocket;

use common::{Daemon, fails, flow, ping_pong, soon, spawn};

/// A resolver that answers every query with itself as an empty answer.
async fn resolver() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buf = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut buf).await {
            buf[2] |= 0x80;
            let _ = socket.send_to(&buf[..len], from).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn many_guests_are_served_and_the_end_is_clean() {
    let resolver = resolver().await.to_string();
    let daemon = Daemon::start(&["--resolver", &resolver, "--log-level", "debug"]);
    for guest in [daemon.guest().await, daemon.guest().await] {
        let (mut app, mut server, relay) = flow(&guest).await;
        ping_pong(&mut app, &mut server).await;
        drop((app, server));
        assert_eq!(soon("end", relay).await.unwrap(), End::Closed);

        let echo = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = echo.local_addr().unwrap();
        let target = Target::address(address.ip(), address.port());
        let mut udp = soon("opening", guest.connect_udp(&target))
            .await
            .unwrap()
            .flow;
        udp.send(b"datagram").unwrap();
        let mut buf = [0; 100];
        let (len, from) = soon("datagram", echo.recv_from(&mut buf)).await.unwrap();
        echo.send_to(&buf[..len], from).await.unwrap();
        assert_eq!(
            soon("answer", udp.recv()).await.unwrap().unwrap(),
            "datagram"
        );

        // example.com, A, IN.
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\
            \x07example\x03com\x00\x00\x01\x00\x01";
        let answer = soon("dns", guest.dns(Bytes::from_static(query)))
            .await
            .unwrap();
        assert_eq!(answer.get(..3), Some(&b"\x12\x34\x81"[..]));
    }
    daemon.signal(Signal::SIGTERM);
    let (output, dir) = daemon.end().await;
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "the socket is removed"
    );
    assert!(
        log.contains("guest connected") && log.contains("flow ended"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sigterm_open_flows_go_on_until_they_end() {
    let daemon = Daemon::start(&[]);
    let guest = daemon.guest().await;
    let (mut app, mut server, relay) = flow(&guest).await;
    daemon.signal(Signal::SIGTERM);
    let mut state = guest.state();
    soon("GOAWAY", state.wait_for(|s| *s != LinkState::Up))
        .await
        .unwrap();
    // GOAWAY and the end of the listener are two tasks' work: either may be first.
    soon("no new guest can connect", async {
        while daemon.path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for _ in 0..3 {
        ping_pong(&mut app, &mut server).await;
    }
    drop((app, server));
    assert_eq!(soon("end", relay).await.unwrap(), End::Closed);
    assert_eq!(daemon.end().await.0.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_do_not_end_are_cut_at_the_deadline() {
    let daemon = Daemon::start(&["--drain-timeout", "100ms"]);
    let guest = daemon.guest().await;
    let (_app, _server, relay) = flow(&guest).await;
    daemon.signal(Signal::SIGINT);
    let (output, _dir) = daemon.end().await;
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("flows were cut"), "{log}");
    // The reset of the flow and the end of its connection are under way at once.
    let end = soon("end", relay).await.unwrap();
    assert!(matches!(end, End::LinkLost | End::ResetByPeer), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_the_next_one_starts_on_the_same_socket() {
    let mut daemon = Daemon::start(&[]);
    let guest = daemon.guest().await;
    daemon.child.kill().await.unwrap();
    assert!(daemon.path.exists(), "a killed process leaves it behind");
    daemon.child = spawn(&daemon.path, &[]);
    let mut state = guest.state();
    soon("the link", state.wait_for(|s| *s == LinkState::Up))
        .await
        .unwrap();
    let (mut app, mut server, _relay) = flow(&guest).await;
    ping_pong(&mut app, &mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_limits_narrow() {
    let daemon = Daemon::start(&["--deny", "127.0.0.0/8", "--allow", "127.0.0.1"]);
    let guest = daemon.guest().await;
    for target in [
        Target::host_loopback(9),
        Target::address(Ipv4Addr::LOCALHOST, 9),
        Target::address(Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 9),
        Target::address(Ipv4Addr::new(192, 0, 2, 1), 9),
    ] {
        let tcp = soon("refusal", guest.connect_tcp(&target)).await;
        assert!(
            matches!(tcp, Err(OpenError::Refused(Refusal::Prohibited))),
            "{target}: {tcp:?}"
        );
        let udp = soon("refusal", guest.connect_udp(&target)).await;
        assert!(
            matches!(udp, Err(OpenError::Refused(Refusal::Prohibited))),
            "{target}: {udp:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_flows_is_limited() {
    let daemon = Daemon::start(&["--max-flows", "1"]);
    let guest = daemon.guest().await;
    let (_app, _server, _relay) = flow(&guest).await;
    let second = soon("refusal", guest.connect_tcp(&Target::host_loopback(9))).await;
    assert!(
        matches!(second, Err(OpenError::Refused(Refusal::LimitReached))),
        "{second:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_has_its_exit_code() {
    let (code, said) = fails(&["run"]).await;
    assert!(code == 64 && said.contains("--listen"), "{code}: {said}");
    let (code, said) = fails(&["run", "--listen", "tcp://127.0.0.1:1"]).await;
    assert!(code == 64 && said.contains("mutual TLS"), "{code}: {said}");
    let (code, said) = fails(&["run", "--listen", "vsock://any:1", "--deny", "10.1.0.0/8"]).await;
    assert!(
        code == 64 && said.contains("did you mean 10.0.0.0/8?"),
        "{code}: {said}"
    );

    let dir = tempfile::tempdir().unwrap();
    let missing = format!("unix://{}/no/outer.sock", dir.path().display());
    let (code, said) = fails(&["run", "--listen", &missing]).await;
    assert!(
        code == 71 && said.contains("/no does not exist"),
        "{code}: {said}"
    );

    let daemon = Daemon::start(&[]);
    let _guest = daemon.guest().await;
    let url = format!("unix://{}", daemon.path.display());
    let (code, said) = fails(&["run", "--listen", &url]).await;
    assert!(
        code == 69 && said.contains("already listening") && said.contains("outer.sock"),
        "{code}: {said}"
    );
    assert!(daemon.path.exists(), "and the other's socket is left alone");
}
