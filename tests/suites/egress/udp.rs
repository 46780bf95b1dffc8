//! Datagrams.

use odyn_tests::serve;

use crate::{program, shop, start};

/// Nothing, every size near a power of two, and the largest that IPv4 carries.
fn sizes() -> Vec<String> {
    let mut sizes: Vec<u32> = (0..16)
        .flat_map(|power| [(1_u32 << power) - 1, 1 << power, (1 << power) + 1])
        .chain([0, 1_472, 1_473, 65_506, 65_507])
        .filter(|size| *size <= 65_507)
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.iter().map(u32::to_string).collect()
}

fn echoes(host: &str, bind: &str, style: &str) {
    let world = start!(shop());
    serve::udp_echo(world.internet().udp(bind));
    let sizes = sizes();
    let mut words = vec![host, "7", style];
    words.extend(sizes.iter().map(String::as_str));
    let out = world.python(program!("udp_echo"), &words);
    assert!(out.ok().starts_with("echoed "), "{}", out.describe());
    out.allowed("udp", host, 7, host);
    if let Some(flow) = out.flow("udp", host, 7) {
        let total: u64 = sizes
            .iter()
            .map(|size| size.parse::<u64>().expect("a number"))
            .sum();
        assert!(
            flow.bytes_sent >= total && flow.bytes_received >= total,
            "{flow:?}"
        );
    }
}

#[test]
fn datagrams_of_every_size_by_name() {
    echoes("v4.shop.example", "203.0.113.11:7", "connected");
}

#[test]
fn datagrams_of_every_size_from_an_unconnected_socket() {
    echoes("203.0.113.20", "203.0.113.20:7", "unconnected");
}

#[test]
fn datagrams_of_every_size_over_ipv6() {
    echoes("2001:db8::12", "[2001:db8::12]:7", "unconnected");
}

/// Many at once, shorter and longer than the packets of the host's network: whether they go there
/// together or not, they arrive one by one and in order.
#[test]
fn bursts_come_back_as_they_were_sent() {
    let world = start!(shop());
    serve::udp_echo(world.internet().udp("203.0.113.11:7"));
    let out = world.python(program!("udp_burst"), &["v4.shop.example", "7"]);
    let said = out.ok();
    let total: u64 = said
        .strip_prefix("echoed ")
        .and_then(|bytes| bytes.trim_end().parse().ok())
        .unwrap_or_else(|| panic!("{}", out.describe()));
    if let Some(flow) = out.flow("udp", "v4.shop.example", 7) {
        assert_eq!((flow.bytes_sent, flow.bytes_received), (total, total));
    }
}

#[test]
fn a_denied_datagram_is_refused_at_once() {
    let world = start!(shop());
    serve::udp_echo(world.internet().udp("203.0.113.66:7"));
    let out = world.python(program!("connect"), &["udp", "203.0.113.66", "7"]);
    if world.direct() {
        assert_eq!(out.ok(), "ok ping\n");
        return;
    }
    assert_eq!(out.ok(), "failed ECONNREFUSED\n", "{}", out.describe());
    out.denied("udp", "203.0.113.66", 7, "no-rule");
}

#[test]
fn a_port_without_a_listener_is_refused_honestly() {
    let world = start!(shop());
    let out = world.python(program!("connect"), &["udp", "203.0.113.20", "9"]);
    assert_eq!(out.ok(), "failed ECONNREFUSED\n", "{}", out.describe());
    if let Some(flow) = out.flow("udp", "203.0.113.20", 9) {
        assert_eq!(
            (flow.verdict.as_str(), flow.end.as_str()),
            ("allow", "refused")
        );
    }
}

#[test]
fn one_question_may_have_many_answers() {
    let world = start!(shop());
    let socket = world.internet().udp("203.0.113.20:7");
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            for number in 0..200_u32 {
                let _ = socket.send_to(&number.to_be_bytes().repeat(100), from);
            }
        }
    });
    let source = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
s.settimeout(5)
s.sendto(b"go", ("203.0.113.20", 7))
got = []
try:
    while len(got) < 200: got.append(int.from_bytes(s.recv(1000)[:4], "big"))
except TimeoutError:
    pass
print(len(got), got == sorted(got))
"#;
    let out = world.python(source, &[]);
    // Datagrams may be lost; a burst as small as this one should not be.
    assert_eq!(out.ok(), "200 True\n", "{}", out.describe());
}
