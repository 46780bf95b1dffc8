//! Packets of an app, as the TUN capture reads them: whatever they are, nothing panics, and
//! what is made of them adds up when it is summed anew.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use odyn_net::capture::checksum::Sum;
use odyn_net::capture::tun::Unreachable;
use odyn_net::capture::tun::build::{bare_syn, error, port_unreachable, reset, udp_answer};
use odyn_net::capture::tun::packet::{ICMPV6, Ip, Parsed, TCP, Tcp, UDP, parse};
use odyn_net::capture::tun::reassembly::Reassembly;
use odyn_net::capture::tun::rewrite::{is_sound, rewrite};
use odyn_net::capture::udp_recv::UdpFlowKey;
use odyn_proto::{ClientAddr, OrigDst};

const ENDS_V4: [&str; 2] = ["198.18.0.77:1025", "198.18.0.1:65498"];
const ENDS_V6: [&str; 2] = ["[fd6f:6479:6e00::4d]:65535", "[fd6f:6479:6e00::1]:65498"];

fuzz_target!(|bytes: &[u8]| {
    let Some(parsed) = parse(bytes) else { return };
    match parsed {
        Parsed::Tcp(ip, tcp) => {
            assert_eq!(bytes.len(), ip.header + tcp.header + tcp.data);
            for partial in [false, true] {
                rewritten(bytes, &ip, partial);
            }
            answers(bytes, &ip, &tcp);
        }
        Parsed::Udp(ip, source, destination, data) => {
            assert!(data.len() + 8 + ip.header <= bytes.len());
            let route = UdpFlowKey {
                client: ClientAddr(SocketAddr::new(ip.source, source)),
                original: OrigDst(SocketAddr::new(ip.destination, destination)),
            };
            icmp(&port_unreachable(route, data.len()));
            let mut answer = udp_answer(route, data, false).expect("it fitted one way");
            answer.extend_from_slice(data);
            let Some(Parsed::Udp(back, from, to, same)) = parse(&answer) else {
                panic!("an answer that is no datagram");
            };
            assert_eq!((from, to, same), (destination, source, data));
            let body = &answer[back.header..];
            let sum = Sum::default().bytes(body);
            let sum = sum.pseudo(back.source, back.destination, UDP, body.len());
            assert_eq!(sum.checksum(), 0);
        }
        Parsed::Fragment(ip, fragment) => {
            let mut reassembly = Reassembly::default();
            if let Some(whole) = reassembly.add(&ip, &fragment) {
                assert_eq!(whole, fragment.data);
            }
            icmp(&error(&ip, bytes, Unreachable::Prohibited));
        }
        Parsed::Icmp(ip, ..) | Parsed::Other(ip) => {
            icmp(&error(&ip, bytes, Unreachable::Prohibited));
        }
    }
});

/// The packet with checksums that hold, then with other ends: they must hold still.
fn rewritten(bytes: &[u8], ip: &Ip, partial: bool) {
    let mut packet = bytes.to_vec();
    if ip.source.is_ipv4() {
        packet[10..12].fill(0);
        let sum = Sum::default().bytes(&packet[..ip.header]).checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let field = ip.header + 16..ip.header + 18;
    packet[field.clone()].fill(0);
    let body = &packet[ip.header..];
    let pseudo = Sum::default().pseudo(ip.source, ip.destination, TCP, body.len());
    let sum = if partial {
        pseudo.folded()
    } else {
        pseudo.bytes(body).checksum()
    };
    packet[field].copy_from_slice(&sum.to_be_bytes());
    assert!(is_sound(&packet, ip, partial));

    let ends = if ip.source.is_ipv4() {
        ENDS_V4
    } else {
        ENDS_V6
    };
    let [from, to] = ends.map(|end| end.parse::<SocketAddr>().expect("an address"));
    rewrite(&mut packet, ip, partial, from, to).expect("the same family");
    let Some(Parsed::Tcp(ip, tcp)) = parse(&packet) else {
        panic!("TCP no more");
    };
    assert_eq!(SocketAddr::new(ip.source, tcp.source), from);
    assert_eq!(SocketAddr::new(ip.destination, tcp.destination), to);
    assert!(is_sound(&packet, &ip, partial));
}

fn answers(bytes: &[u8], ip: &Ip, tcp: &Tcp) {
    if let Some(reset) = reset(ip, tcp) {
        let Some(Parsed::Tcp(back, answer)) = parse(&reset) else {
            panic!("a reset that is no TCP");
        };
        assert!(is_sound(&reset, &back, false));
        assert_eq!((back.source, back.destination), (ip.destination, ip.source));
        assert_eq!(
            (answer.source, answer.destination),
            (tcp.destination, tcp.source)
        );
    }
    let syn = bare_syn(bytes, ip, tcp);
    let Some(Parsed::Tcp(same, bare)) = parse(&syn) else {
        panic!("a SYN that is no TCP");
    };
    assert!(is_sound(&syn, &same, false));
    assert_eq!((bare.data, bare.sequence), (0, tcp.sequence));
    icmp(&error(ip, bytes, Unreachable::Host));
}

/// An error of ours: well-formed, short, and it adds up.
fn icmp(packet: &[u8]) {
    let Some(Parsed::Icmp(ip, ..)) = parse(packet) else {
        panic!("an error that is no ICMP");
    };
    assert!(packet.len() <= if ip.source.is_ipv4() { 576 } else { 1280 });
    let body = &packet[ip.header..];
    let mut sum = Sum::default().bytes(body);
    if ip.source.is_ipv6() {
        sum = sum.pseudo(ip.source, ip.destination, ICMPV6, body.len());
    }
    assert_eq!(sum.checksum(), 0);
}
