//! Dials the addresses of a target.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use odyn_proto::{Refusal, Target, TargetHost};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::rules::AddressLimits;

/// Head start of each candidate over the next (RFC 8305 section 5, Connection Attempt Delay).
const HEAD_START: Duration = Duration::from_millis(250);

/// Silence after which a connection is probed, to notice a peer that is gone.
///
/// The guest's own keepalive probes end at the guest's loopback.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Receive buffer of a UDP flow, in bytes of the kernel's counting.
const UDP_RECEIVE_BUFFER: usize = 1 << 20;

/// Interval between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Unanswered probes after which the connection counts as broken.
const KEEPALIVE_PROBES: u32 = 4;

/// The addresses of a target that may be dialled, in order.
///
/// # Errors
/// The operator's limits leave no address.
pub(crate) fn candidates(
    target: &Target,
    limits: &AddressLimits,
) -> Result<Vec<SocketAddr>, Refusal> {
    let parent = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let all: &[IpAddr] = match &target.host {
        TargetHost::HostLoopback => &parent,
        TargetHost::Addresses(list) => list,
    };
    let permitted: Vec<SocketAddr> = all
        .iter()
        .filter(|address| limits.permit(**address))
        .map(|address| SocketAddr::new(address.to_canonical(), target.port))
        .collect();
    if permitted.is_empty() {
        Err(Refusal::Prohibited)
    } else {
        Ok(permitted)
    }
}

/// Connects to the first candidate that answers; each has a head start over the next.
///
/// # Errors
/// No address answers in `limit`: the error of the first address, which is the preferred one.
pub(crate) async fn tcp(
    candidates: &[SocketAddr],
    limit: Duration,
) -> Result<(TcpStream, SocketAddr), Refusal> {
    let (socket, address) = timeout(limit, race(candidates))
        .await
        .map_err(|_| Refusal::ConnectionTimeout)??;
    probe(&socket);
    Ok((socket, address))
}

/// Makes the kernel probe a silent connection, to notice a peer that is gone. Best effort.
///
/// Accepted sockets need it as well: those that wait in a listener which the service manager hands
/// over inherit nothing from options that are set on the listener afterwards.
pub(crate) fn probe(socket: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

async fn race(candidates: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Refusal> {
    if let [address] = candidates {
        // Most targets have one address: no race.
        return attempt(*address).await.map(|socket| (socket, *address));
    }
    let mut waiting = candidates.iter().copied().enumerate();
    let mut attempts = FuturesUnordered::new();
    let mut best: Option<(usize, Refusal)> = None;
    loop {
        let more = match waiting.next() {
            Some((rank, address)) => {
                attempts.push(async move { (rank, address, attempt(address).await) });
                true
            }
            None => false,
        };
        // The next attempt starts after the head start, or as soon as an attempt fails.
        let finished = tokio::select! {
            finished = attempts.next() => finished,
            () = sleep(HEAD_START), if more => continue,
        };
        match finished {
            Some((_, address, Ok(socket))) => return Ok((socket, address)),
            Some((rank, _, Err(refusal))) => {
                if best.is_none_or(|(other, _)| rank < other) {
                    best = Some((rank, refusal));
                }
            }
            None => return Err(best.map_or(Refusal::Unroutable, |(_, refusal)| refusal)),
        }
    }
}

async fn attempt(address: SocketAddr) -> Result<TcpStream, Refusal> {
    odyn_link::connect(address).await.map_err(|error| {
        debug!(%address, %error, "dial failed");
        odyn_link::refusal_from_io(&error)
    })
}

/// A UDP socket that is connected to the first candidate to which there is a route.
///
/// # Errors
/// There is a route to none: the error of the first address.
pub(crate) async fn udp(candidates: &[SocketAddr]) -> Result<(UdpSocket, SocketAddr), Refusal> {
    let mut first = None;
    for address in candidates {
        match udp_to(*address).await {
            Ok(socket) => return Ok((socket, *address)),
            Err(error) => {
                debug!(%address, %error, "no UDP socket");
                first.get_or_insert(odyn_link::refusal_from_io(&error));
            }
        }
    }
    Err(first.unwrap_or(Refusal::Unroutable))
}

async fn udp_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The system's default holds about 160 small datagrams; QUIC servers send more in one burst.
    // The kernel caps the size at net.core.rmem_max.
    let _ = SockRef::from(&socket).set_recv_buffer_size(UDP_RECEIVE_BUFFER);
    socket.connect(address).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    const LONG: Duration = Duration::from_secs(60);

    /// A closed port of loopback. The socket holds it, so that no other test gets it.
    fn closed() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn the_next_candidate_has_its_turn_when_the_first_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let (_held, closed) = closed();
        let (_, dialled) = tcp(&[closed, good], LONG).await.unwrap();
        assert_eq!(dialled, good);
    }

    #[tokio::test]
    async fn the_first_candidates_failure_is_the_one_reported() {
        // A multicast address can't be dialled: another error than a closed port's.
        let multicast: SocketAddr = "[ff02::1]:9".parse().unwrap();
        let (_held, closed) = closed();
        let refused = tcp(&[closed, multicast], LONG).await.unwrap_err();
        assert_eq!(refused, Refusal::ConnectionRefused);
        let other = tcp(&[multicast, closed], LONG).await.unwrap_err();
        assert_ne!(other, Refusal::ConnectionRefused);
    }

    #[tokio::test]
    async fn both_ends_of_a_connection_can_be_probed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, _) = tcp(&[listener.local_addr().unwrap()], LONG).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        probe(&accepted);
        for socket in [dialled, accepted] {
            let socket = SockRef::from(&socket);
            assert!(socket.keepalive().unwrap());
            assert!(socket.tcp_keepalive_time().unwrap() <= Duration::from_secs(60));
        }
    }

    #[tokio::test]
    async fn a_silent_candidate_is_a_timeout() {
        // A queue of one that is full: the kernel drops further SYNs.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        let refusal = loop {
            match tcp(&[address], Duration::from_millis(300)).await {
                Ok(open) => held.push(open),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal, Refusal::ConnectionTimeout);
        // A silent address has a head start only.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        assert_eq!(tcp(&[address, good], LONG).await.unwrap().1, good);
    }

    #[tokio::test]
    async fn the_parents_loopback_is_tried_in_both_families() {
        let Ok(listener) = TcpListener::bind("[::1]:0").await else {
            eprintln!("no IPv6 loopback here: not tested");
            return;
        };
        let address = listener.local_addr().unwrap();
        let list = candidates(
            &Target::host_loopback(address.port()),
            &AddressLimits::default(),
        )
        .unwrap();
        assert!(list[0].is_ipv4());
        assert_eq!(tcp(&list, LONG).await.unwrap().1, address);
    }

    #[test]
    fn prohibited_candidates_are_left_out() {
        let limits = AddressLimits::default().deny(["192.0.2.0/24".parse().unwrap()]);
        let of = |list: &[&str]| {
            let host = TargetHost::Addresses(list.iter().map(|a| a.parse().unwrap()).collect());
            candidates(&Target { host, port: 1 }, &limits)
        };
        assert_eq!(
            of(&["192.0.2.1", "::ffff:192.0.2.2"]),
            Err(Refusal::Prohibited)
        );
        assert_eq!(
            of(&["192.0.2.1", "203.0.113.1"]),
            Ok(vec!["203.0.113.1:1".parse().unwrap()])
        );
    }

    #[tokio::test]
    async fn udp_has_a_socket_of_the_right_family() {
        let (socket, _) = udp(&["127.0.0.1:9".parse().unwrap()]).await.unwrap();
        assert!(socket.local_addr().unwrap().is_ipv4());
    }
}
