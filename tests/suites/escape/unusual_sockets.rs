//! Unusual sockets and unusual callers: all of them are flows like any other,
//! or nothing at all.

use odyn_tests::{Guest, ethernet, serve};

use crate::{program, shop, skipped_by_tun, start};

#[test]
fn multipath_tcp_and_fast_open_are_tcp() {
    let world = start!(shop());
    serve::echo(world.internet().listen("0.0.0.0:7000"));
    let source = r#"
import socket
def mptcp(host):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as s:
        s.settimeout(8)
        s.connect((host, 7000))
        s.sendall(b"hi")
        return s.recv(10)
def fastopen(host):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        # Without a cookie this connects first: it must be allowed to block.
        s.sendto(b"hi", socket.MSG_FASTOPEN, (host, 7000))
        s.settimeout(8)
        return s.recv(10)
for what in (mptcp, fastopen):
    for host in ("203.0.113.20", "203.0.113.66"):
        try:
            print(what.__name__, host, what(host))
        except TimeoutError as error:
            print(what.__name__, host, "timeout" if error.errno is None else "failed")
        except OSError as error:
            # A kernel without MPTCP has no way out by it.
            print(what.__name__, host, "b'hi'" if error.errno == 93 else "failed")
"#;
    let out = world.python(source, &[]);
    let lines: Vec<&str> = out.ok().lines().collect();
    for (line, good) in lines.iter().zip([true, false, true, false]) {
        let want = if good || world.direct() {
            "b'hi'"
        } else {
            "failed"
        };
        assert!(
            line.ends_with(want) || line.contains("mptcp 203.0.113.66 b'hi'"),
            "{}",
            out.describe()
        );
    }
    if !world.direct() {
        assert!(
            out.flows("tcp", "203.0.113.66", 7000)
                .iter()
                .all(|flow| flow.verdict == "deny")
        );
        assert!(!out.flows("tcp", "203.0.113.66", 7000).is_empty());
    }
}

#[test]
fn marks_transparency_and_devices_are_not_the_apps() {
    let world = start!(shop());
    if world.direct() || skipped_by_tun("the guest has another interface") {
        return;
    }
    let source = r#"
import socket, struct
IP_TRANSPARENT, IP_FREEBIND = 19, 15
def attempt(what, work):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    try:
        work(s)
        s.sendto(b"out", ("203.0.113.66", 7000))
        s.recv(10)
    except OSError:
        pass
for mark in (1, 2, 3, 0xffffffff):
    attempt("mark", lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", mark)))
attempt("transparent", lambda s: s.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1))
def freebind(s):
    s.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
    s.bind(("192.0.2.2", 0))
attempt("freebind", freebind)
attempt("device", lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0"))
attempt("source route", lambda s: s.setsockopt(
    socket.SOL_IP, socket.IP_OPTIONS, bytes([131, 7, 4]) + socket.inet_aton("203.0.113.66") + b"\0"))
attempt("dontroute", lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1))
s = socket.socket()
try:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 2)
    print("marked")
except PermissionError:
    pass
"#;
    let out = Guest::python(source, &[])
        .prelude(&ethernet::prelude(&world))
        .run(&world);
    assert_eq!(out.ok(), "", "{}", out.describe());
    assert_eq!(
        ethernet::leaks(&world),
        "",
        "packets left\n{}",
        out.describe()
    );
    assert!(
        out.audit.iter().all(|record| record.verdict == "deny"),
        "{}",
        out.describe()
    );
}

#[test]
fn sockets_by_other_doors_cannot_be_vsock() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    // Raw system calls: io_uring makes sockets without socket(2), and the x32
    // numbers are another table of the same calls.
    let source = r#"
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
parameters = (ctypes.c_char * 120)()
def call(what, *words):
    result = libc.syscall(*words)
    if result >= 0: print(what, "gave", result)
AF_VSOCK, SOCK_STREAM, SOCK_DGRAM = 40, 1, 2
call("io_uring_setup", 425, 4, parameters)
if platform.machine() == "x86_64":
    for kind in (SOCK_STREAM, SOCK_DGRAM, SOCK_STREAM | 0o2000000):
        call("socket", 41, AF_VSOCK, kind, 0)
        call("x32 socket", 0x40000000 | 41, AF_VSOCK, kind, 0)
        # The kernel looks at the lower half of the argument only.
        call("socket, wide", 41, ctypes.c_ulong(AF_VSOCK | 1 << 32), kind, 0)
    call("x32 io_uring_setup", 0x40000000 | 425, 4, parameters)
"#;
    let out = world.python(source, &[]);
    assert_eq!(out.ok(), "", "{}", out.describe());
}

#[test]
fn the_apps_own_loopback_is_its_own() {
    let world = start!(shop());
    let source = r#"
import socket, threading
def tcp(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen()
    def serve():
        s, _ = listener.accept()
        s.sendall(s.recv(100))
        s.close()
    threading.Thread(target=serve).start()
    s = socket.create_connection(listener.getsockname()[:2], timeout=8)
    s.sendall(b"mine")
    print("tcp", host, s.recv(100))
def udp(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    a, b = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    a.bind((host, 0)); b.settimeout(8)
    b.sendto(b"mine", a.getsockname()[:2])
    data, peer = a.recvfrom(100)
    a.sendto(data, peer[:2])
    print("udp", host, b.recv(100))
for host in ("127.0.0.1", "127.0.0.2", "::1"):
    tcp(host, 0); udp(host)
tcp("127.0.0.1", 8080)
tcp("0.0.0.0", 0)
"#;
    let out = world.python(source, &[]);
    assert_eq!(out.ok().matches("b'mine'").count(), 8, "{}", out.describe());
    assert!(out.audit.is_empty(), "{}", out.describe());
}

#[test]
fn two_apps_in_one_guest_have_the_same_rules() {
    let world = start!(shop());
    serve::banner(world.internet().listen("0.0.0.0:7000"), "hello");
    let script = format!(
        "connect() {{ python3 -c '{}' tcp 203.0.113.20 7000 203.0.113.66 7000; }}\n\
         connect & first=$!\n connect & second=$!\n wait $first; wait $second",
        program!("connect").replace('\'', "'\\''")
    );
    let out = Guest::sh(&script).run(&world);
    let good = if world.direct() { 4 } else { 2 };
    assert_eq!(
        out.ok().matches("ok hello").count(),
        good,
        "{}",
        out.describe()
    );
}
