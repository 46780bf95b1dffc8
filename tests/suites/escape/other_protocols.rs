//! Ways out that are neither TCP nor UDP: what the kernel refuses, and what
//! odyn-net rejects and records.

use odyn_tests::{Guest, Output};

use crate::{shop, start};

/// Lets every user open ping sockets, as most distributions do at boot.
const PING_SOCKETS: &str = "echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range";

/// Asserts that the kernel's rejection of a packet to `who` was recorded.
#[track_caller]
fn rejected(out: &Output, protocol: &str, who: &str) {
    let records: Vec<_> = out
        .audit
        .iter()
        .filter(|record| record.protocol == protocol && record.is_about(who))
        .collect();
    assert!(
        !records.is_empty(),
        "no {protocol} record of {who}\n{}",
        out.describe()
    );
    for record in records {
        assert_eq!(record.verdict, "deny", "{}", out.describe());
        assert_eq!(
            record.reason.as_deref(),
            Some("not-capturable"),
            "{}",
            out.describe()
        );
    }
}

#[test]
fn raw_and_packet_sockets_are_refused_to_the_user() {
    let world = start!(shop());
    let source = r#"
import socket
for family, kind, protocol in (
    (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
    (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    (socket.AF_PACKET, socket.SOCK_RAW, 0),
    (socket.AF_PACKET, socket.SOCK_DGRAM, 0),
):
    try:
        socket.socket(family, kind, protocol)
        print("opened", family, kind, protocol)
    except PermissionError:
        pass
"#;
    assert_eq!(world.python(source, &[]).ok(), "");
}

#[test]
fn ping_fails_fast_and_is_recorded() {
    let world = start!(shop());
    for (flag, address, protocol) in [
        ("-4", "203.0.113.20", "icmp"),
        ("-6", "2001:db8::12", "icmpv6"),
    ] {
        let out = Guest::new(&["ping", flag, "-n", "-c", "1", "-W", "5", address])
            .prelude(PING_SOCKETS)
            .run(&world);
        if world.direct() {
            continue; // Whether the host's user may ping is the machine's business.
        }
        out.failed();
        rejected(&out, protocol, address);
    }
}

#[test]
fn a_transport_that_is_not_carried_is_rejected_and_recorded() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    // SCTP, UDP-Lite, DCCP: what this kernel has of them.
    let source = r#"
import socket
for kind, protocol in ((socket.SOCK_STREAM, 132), (socket.SOCK_DGRAM, 136), (6, 33)):
    try:
        s = socket.socket(socket.AF_INET, kind, protocol)
    except OSError:
        continue
    s.settimeout(8)
    try:
        s.connect(("203.0.113.20", 7000))
        s.send(b"x")
        s.recv(1)
        print("got out", protocol)
    except TimeoutError as error:
        print("hung" if error.errno is None else "tried", protocol)
    except OSError:
        print("tried", protocol)
"#;
    let out = world.python(source, &[]);
    for line in out.ok().lines() {
        let (what, protocol) = line.split_once(' ').expect("two words");
        assert_eq!(what, "tried", "{}", out.describe());
        rejected(&out, &format!("ip-{protocol}"), "203.0.113.20");
    }
}

#[test]
fn raw_packets_of_a_root_app_are_rejected_and_recorded() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    // An app that its owner runs as root may be left CAP_NET_RAW, or not:
    // either the socket is refused, or each packet is.
    let source = r#"
import socket, struct
for protocol in (1, 47, 132):
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    except PermissionError:
        continue
    s.settimeout(3)
    packet = struct.pack("!BBHHH", 8, 0, 0xF7FD, 1, 1)
    try:
        s.sendto(packet, ("203.0.113.20", 0))
        print("sent", protocol)
    except OSError as error:
        print("rejected", protocol)
"#;
    let out = Guest::python(source, &[]).root().run(&world);
    for line in out.ok().lines() {
        let protocol = match line.rsplit_once(' ').map(|(_, protocol)| protocol) {
            Some("1") => "icmp".to_owned(),
            Some(number) => format!("ip-{number}"),
            None => panic!("{line}"),
        };
        rejected(&out, &protocol, "203.0.113.20");
    }
}

#[test]
fn broadcast_and_multicast_go_nowhere() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let source = r#"
import errno, socket
for host in ("255.255.255.255", "224.0.0.251", "ff02::fb"):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.settimeout(1)
    try:
        s.sendto(b"anyone?", (host, 7000))
        print(host, "got", s.recv(100))
    except OSError as error:
        print(host, "nothing")
"#;
    let out = world.python(source, &[]);
    assert!(!out.ok().contains("got"), "{}", out.describe());
    assert!(
        out.audit.iter().all(|record| record.verdict == "deny"),
        "{}",
        out.describe()
    );
    for who in ["255.255.255.255", "224.0.0.251"] {
        let recorded = out.audit.iter().any(|record| record.is_about(who));
        assert!(recorded, "no record of {who}\n{}", out.describe());
    }
}
