//! Guests that are not as bare as an enclave.

use odyn_tests::{Guest, ethernet, serve};

use crate::{program, shop, skipped_by_tun, start};

#[test]
fn another_interface_is_no_way_out() {
    let world = start!(shop());
    if world.direct() || skipped_by_tun("the guest has another interface") {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "fine");
    let source = r#"
import socket, struct, subprocess
def shape(s, bind, option):
    if bind: s.bind((bind, 0))
    if option: s.setsockopt(*option)
def tcp(host, port=7000, bind=None, option=None):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as s:
        s.settimeout(2)
        shape(s, bind, option)
        s.connect(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4])
        return s.recv(100)
def udp(host, port=7000, bind=None, option=None):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        shape(s, bind, option)
        s.sendto(b"leak", socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)[0][4])
        return s.recv(100)
def attempt(what, *words, **more):
    try:
        print(what.__name__, *words, what(*words, **more))
    except OSError as error:
        pass
print(tcp("203.0.113.20"))
for host in ("203.0.113.66", "192.0.2.201", "2001:db8::66", "2001:db8:2::1", "fe80::2%eth0"):
    attempt(tcp, host)
    attempt(udp, host)
    attempt(udp, host, 53)
for host in ("192.0.2.255", "255.255.255.255", "224.0.0.251", "ff02::fb%eth0"):
    attempt(udp, host)
attempt(tcp, "203.0.113.66", bind="192.0.2.200")
attempt(udp, "203.0.113.66", bind="192.0.2.200")
# A device may be chosen by anyone (SO_BINDTODEVICE, IP_UNICAST_IF, SO_DONTROUTE).
index = struct.pack("!I", socket.if_nametoindex("eth0"))
for option in (
    (socket.SOL_SOCKET, 25, b"eth0"), (socket.SOL_IP, 50, index), (socket.IPPROTO_IPV6, 76, index),
    (socket.SOL_SOCKET, socket.SO_DONTROUTE, 1),
):
    for host in ("203.0.113.66", "192.0.2.201", "2001:db8:2::1", "203.0.113.20", "192.0.2.255"):
        attempt(tcp, host, 7001, option=option)
        attempt(udp, host, 7001, option=option)
for host in ("192.0.2.201", "2001:db8:2::1", "203.0.113.66"):
    subprocess.run(["ping", "-c1", "-W2", host], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"#;
    let out = Guest::python(source, &[])
        .prelude(&ethernet::prelude(&world))
        .run(&world);
    assert_eq!(
        ethernet::leaks(&world),
        "",
        "packets left\n{}",
        out.describe()
    );
    assert_eq!(out.ok(), "b'fine\\n'\n", "{}", out.describe());
    assert!(
        out.audit
            .iter()
            .filter(|record| record.protocol == "tcp")
            .count()
            >= 5
    );
}

#[test]
fn a_connection_from_outside_is_no_way_out() {
    let world = start!(shop());
    if world.direct() || skipped_by_tun("the guest has another interface") {
        return;
    }
    // The neighbour calls; whatever the app would tell it leaves unjudged.
    let caller = r#"
nsenter -t $peer -n python3 -c '
import os, socket, time
while not os.path.exists("listening"): time.sleep(0.01)
for host in ("192.0.2.200", "2001:db8:2::2"):
    with open("inbound", "a") as out:
        try:
            s = socket.create_connection((host, 8080), timeout=2)
            print("heard", s.recv(100), file=out)
        except OSError:
            pass
open("called", "w")
' >/dev/null 2>&1 &
"#;
    let source = r#"
import os, socket, threading, time
def serve(listener):
    while True:
        s, _ = listener.accept()
        try: s.sendall(b"secret"); s.close()
        except OSError: pass
for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    listener = socket.socket(family)
    if family == socket.AF_INET6: listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((host, 8080)); listener.listen()
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
open("listening", "w")
while not os.path.exists("called"): time.sleep(0.01)
"#;
    let out = Guest::python(source, &[])
        .prelude(&ethernet::prelude(&world))
        .prelude(caller)
        .run(&world);
    out.ok();
    let heard = std::fs::read_to_string(world.scratch().join("inbound")).expect("the caller tried");
    assert_eq!(heard, "", "{}", out.describe());
}

#[test]
fn a_guest_without_ipv6_has_ipv4() {
    let world = start!(shop());
    serve::banner(world.internet().listen("0.0.0.0:7000"), "hello");
    let out = Guest::python(
        program!("connect"),
        &[
            "tcp",
            "v4.shop.example",
            "7000",
            "203.0.113.20",
            "7000",
            "203.0.113.66",
            "7000",
        ],
    )
    .prelude("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done")
    .run(&world);
    let lines: Vec<&str> = out.ok().lines().collect();
    assert_eq!(lines[..2], ["ok hello", "ok hello"], "{}", out.describe());
    assert_eq!(
        lines[2].starts_with("failed E"),
        !world.direct(),
        "{}",
        out.describe()
    );
}
