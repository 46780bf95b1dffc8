//! Operations on the flow table of the TUN capture, in any order: it stays within its bound, a
//! peer leads to one flow only, and no connection is opened after it was refused or twice.

#![no_main]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use odyn_net::capture::routes::OwnAddresses;
use odyn_net::capture::tun::Refusal;
use odyn_net::capture::tun::packet::Tcp;
use odyn_net::capture::tun::table::{Step, Table};
use odyn_net::capture::udp_recv::UdpFlowKey;
use odyn_proto::ClientAddr;

const LIMIT: usize = 12;

fuzz_target!(|bytes: &[u8]| {
    let own = OwnAddresses {
        v4: "198.18.0.1".parse().expect("an address"),
        v6: Some("fd6f:6479:6e00::1".parse().expect("an address")),
    };
    let mut table: Table<u8> = Table::new(own, LIMIT);
    let mut now = Instant::now();
    let (mut held, mut peers) = (Vec::new(), Vec::new());
    let mut settled = HashSet::new();
    for operation in bytes.chunks_exact(4) {
        let [what, port, flags, number] = *operation else {
            continue;
        };
        let six = port & 1 == 1;
        let route = UdpFlowKey {
            client: ClientAddr(SocketAddr::new(
                if six {
                    "fd6f:6479:6e00::1"
                } else {
                    "198.18.0.1"
                }
                .parse()
                .expect("an address"),
                u16::from(port),
            )),
            original: if six {
                "[2001:db8::9]:443"
            } else {
                "203.0.113.9:443"
            }
            .parse()
            .expect("an address"),
        };
        let tcp = Tcp {
            source: 0,
            destination: 0,
            sequence: u32::from(number),
            acknowledged: u32::from(number),
            flags: flags & 0x1f,
            header: 20,
            data: usize::from(flags >> 5),
        };
        let pick = usize::from(number);
        match what % 7 {
            0 | 1 => match table.from_app(route, &tcp, Some(vec![number]), now) {
                Step::Held(id) => held.push(id),
                Step::Forward(peer) => assert_eq!(peer.is_ipv6(), six),
                _ => {}
            },
            2 => {
                if let Some(id) = held.get(pick % held.len().max(1)).copied()
                    && let Some((_, peer)) = table.open(id, Some(number))
                {
                    assert!(settled.insert(id), "opened after it was settled");
                    assert!(!peers.contains(&peer), "a peer twice");
                    peers.push(peer);
                }
            }
            3 => {
                if let Some(id) = held.get(pick % held.len().max(1)).copied()
                    && table.refuse(id, Refusal::Reset, now).is_some()
                {
                    assert!(settled.insert(id), "refused after it was settled");
                }
            }
            4 => {
                if let Some(peer) = peers.get(pick % peers.len().max(1))
                    && let Some((from, to)) = table.from_listener(*peer, &tcp, now)
                {
                    assert_eq!(from.is_ipv6(), peer.is_ipv6());
                    assert_eq!(to.is_ipv6(), peer.is_ipv6());
                }
            }
            5 => {
                if let Some(peer) = peers.get(pick % peers.len().max(1)) {
                    let _ = table.accepted(*peer);
                }
                if let Some(id) = held.get(pick % held.len().max(1)) {
                    table.ended(*id);
                }
            }
            _ => {
                now += Duration::from_secs(u64::from(number));
                table.sweep(now);
            }
        }
        assert!(table.len() <= LIMIT);
    }
});
