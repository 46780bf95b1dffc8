//! What is particular to capture by a TUN device. The rest of the suite runs on it too, by
//! `ODYN_TEST_CAPTURE=tun`.

use odyn_tests::{Guest, Output, ethernet, serve};

use crate::{program, shop, start};

/// An app in a guest that is captured by TUN, whatever the run is about.
fn guest(source: &str, words: &[&str]) -> Guest {
    Guest::python(source, words).env("ODYN_CAPTURE", "tun")
}

/// The result of connect(), within the kernel's own time limit: errno by name.
const CONNECT: &str = r#"
import errno, socket, sys
for host, port in zip(sys.argv[1::2], sys.argv[2::2]):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 3)
        try:
            s.connect((host, int(port)))
            print("ok")
        except OSError as error:
            print(errno.errorcode.get(error.errno, error.errno))
"#;

#[track_caller]
fn ended(out: &Output, who: &str, port: u16, verdict: &str, end: &str) {
    let flow = out.flow("tcp", who, port).expect("a record");
    assert_eq!(
        (flow.verdict.as_str(), flow.end.as_str()),
        (verdict, end),
        "{}",
        out.describe()
    );
}

#[test]
fn connect_says_what_the_host_found() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.11:7000"), "hello");
    world
        .host()
        .ip("route add unreachable 203.0.113.20/32\nroute add unreachable 2001:db8::12/128\n");
    let source = format!("{CONNECT}\nprint(socket.gethostbyname('v4.shop.example'))");
    let out = guest(
        &source,
        &[
            "203.0.113.66",
            "7000",
            "2001:db8::66",
            "7000",
            "203.0.113.20",
            "7000",
            "2001:db8::12",
            "7000",
            "v4.shop.example",
            "7000",
            "v4.shop.example",
            "7001",
        ],
    )
    .run(&world);
    let lines: Vec<&str> = out.ok().lines().collect();
    let want = [
        "ECONNREFUSED",
        "ECONNREFUSED",
        "EHOSTUNREACH",
        "EHOSTUNREACH",
        "ok",
        "ECONNREFUSED",
    ];
    assert_eq!(lines[..6], want, "{}", out.describe());
    out.denied("tcp", "203.0.113.66", 7000, "no-rule");
    out.denied("tcp", "2001:db8::66", 7000, "no-rule");
    ended(&out, "203.0.113.20", 7000, "allow", "unreachable");
    ended(&out, "2001:db8::12", 7000, "allow", "unreachable");
    ended(&out, "v4.shop.example", 7001, "allow", "refused");
}

#[test]
fn a_peer_that_does_not_answer_is_a_time_out() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    // Its answers go nowhere.
    world
        .internet()
        .ip("rule add from 203.0.113.20/32 blackhole pref 1\n");
    let out = guest(CONNECT, &["203.0.113.20", "7000"]).run(&world);
    assert_eq!(out.ok(), "ETIMEDOUT\n", "{}", out.describe());
    ended(&out, "203.0.113.20", 7000, "allow", "timeout");
}

#[test]
fn no_host_is_an_unreachable_network() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    world.outer().kill();
    let out = guest(CONNECT, &["203.0.113.20", "7000"]).run(&world);
    assert_eq!(out.ok(), "ENETUNREACH\n", "{}", out.describe());
    ended(&out, "203.0.113.20", 7000, "allow", "link-lost");
}

#[test]
fn strict_path_filters_and_forwarding_change_nothing() {
    let world = start!(shop());
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    serve::udp_echo(world.internet().udp("203.0.113.20:7"));
    if world.direct() {
        return;
    }
    let prelude = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >$f; done\n\
                   echo 1 >/proc/sys/net/ipv4/ip_forward\n\
                   echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
    for words in [
        ["tcp", "203.0.113.20", "7000"],
        ["udp", "203.0.113.20", "7"],
    ] {
        let out = guest(program!("connect"), &words)
            .prelude(prelude)
            .run(&world);
        assert!(out.ok().starts_with("ok "), "{}", out.describe());
    }
}

#[test]
fn another_interface_is_refused() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let out = guest("open('started', 'w')", &[])
        .prelude(&ethernet::prelude(&world))
        .run(&world);
    assert_eq!(out.code, 71, "{}", out.describe());
    assert!(out.stderr.contains("eth0"), "{}", out.describe());
    assert!(
        !world.scratch().join("started").exists(),
        "the app was started"
    );
}

#[test]
fn the_app_cannot_attach_to_the_device() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let source = r#"
import fcntl, os, struct
TUNSETIFF, TUN, NO_PI, MULTI_QUEUE, VNET = 0x400454ca, 0x1, 0x1000, 0x100, 0x4000
for flags in (TUN | NO_PI, TUN | NO_PI | VNET, TUN | NO_PI | MULTI_QUEUE, TUN | NO_PI | VNET | MULTI_QUEUE):
    for name in (b"odyn0", b"tun7", b""):
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name, flags))
            print("attached", name, flags)
        except OSError:
            pass
print("tried")
"#;
    assert_eq!(guest(source, &[]).run(&world).ok(), "tried\n");
    assert_eq!(guest(source, &[]).root().run(&world).ok(), "tried\n");
}

#[test]
fn the_device_and_its_routes_go_away_with_odyn_net() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let odyn = odyn_tests::world::executable("ODYN_NET", "odyn-net");
    let prelude = format!(
        "cd {}\n{} run --capture tun --policy {} --link {} -- sh -c 'echo $PPID >first; exec sleep 60' & first=$!\n\
         while [ ! -s first ]; do sleep 0.02; done\n\
         ip link show odyn0 >/dev/null && echo there >seen\n\
         kill -KILL $first; wait $first || true\n\
         {{ ip link show odyn0; ip route show default; ip -6 route show default; }} >left 2>/dev/null || true",
        world.scratch().display(),
        odyn.display(),
        world.policy_file().display(),
        world.link_url()
    );
    guest("", &[]).prelude(&prelude).run(&world).ok();
    let file = |name: &str| std::fs::read_to_string(world.scratch().join(name)).expect("written");
    assert_eq!(file("seen"), "there\n");
    assert_eq!(file("left"), "");
}

/// Refuses sockets to nf_tables as a kernel without it does, then becomes the rest of its words.
const WITHOUT_NF_TABLES: &str = r#"
import ctypes, os, struct, sys
def op(code, jt, jf, k): return struct.pack("HBBI", code, jt, jf, k)
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
socket = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
program = b"".join([
    op(LOAD, 0, 0, 0), op(EQUAL, 0, 5, socket),
    op(LOAD, 0, 0, 16), op(EQUAL, 0, 3, 16),
    op(LOAD, 0, 0, 32), op(EQUAL, 0, 1, 12),
    op(RETURN, 0, 0, 0x00050000 | 93),
    op(RETURN, 0, 0, 0x7fff0000),
])
buffer = ctypes.create_string_buffer(program)
fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, ctypes.create_string_buffer(fprog), 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn a_kernel_without_nf_tables_is_captured_all_the_same() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    let words = ["tcp", "203.0.113.20", "7000", "203.0.113.66", "7000"];
    let out = Guest::python(program!("connect"), &words)
        .env("ODYN_CAPTURE", "auto")
        .wrap(&["python3", "-c", WITHOUT_NF_TABLES])
        .run(&world);
    assert_eq!(
        out.ok(),
        "ok hello\nfailed ECONNREFUSED\n",
        "{}",
        out.describe()
    );
    out.denied("tcp", "203.0.113.66", 7000, "no-rule");
    let said: String = std::fs::read_dir(world.logs())
        .expect("own directory")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".log"))
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok())
        .collect();
    let lines = said.lines().filter(|line| line.contains("not by nftables"));
    assert_eq!(lines.count(), 1, "{said}");

    // Asked for by name, it is not replaced.
    let out = Guest::sh("touch started")
        .env("ODYN_CAPTURE", "nftables")
        .wrap(&["python3", "-c", WITHOUT_NF_TABLES])
        .run(&world);
    assert_eq!(out.code, 71, "{}", out.describe());
}

#[test]
fn it_follows_an_nftables_run_in_the_same_guest() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    let odyn = odyn_tests::world::executable("ODYN_NET", "odyn-net");
    let prelude = format!(
        "{} run --capture nftables --policy {} --link {} -- true",
        odyn.display(),
        world.policy_file().display(),
        world.link_url()
    );
    let out = guest(program!("connect"), &["tcp", "203.0.113.20", "7000"])
        .prelude(&prelude)
        .run(&world);
    assert_eq!(out.ok(), "ok hello\n", "{}", out.describe());
}

#[test]
fn an_answer_to_a_closed_socket_ends_its_flow_and_is_no_packet_of_the_apps() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let server = world.internet().udp("203.0.113.20:7");
    let source = r#"
import os, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"ask", ("203.0.113.20", 7))
while not os.path.exists("asked"): time.sleep(0.01)
s.close()
open("closed", "w")
while not os.path.exists("answered"): time.sleep(0.01)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.sendto(b"ask", ("203.0.113.20", 7))
print(s.recv(10))
"#;
    let running = guest(source, &[]).spawn(&world);
    let mut buffer = [0; 10];
    let touch = |name: &str| std::fs::write(world.scratch().join(name), "").expect("own file");
    let (_, first) = server.recv_from(&mut buffer).expect("a datagram");
    touch("asked");
    odyn_tests::process::until(
        std::time::Duration::from_secs(20),
        "the app to close its socket",
        || world.scratch().join("closed").exists(),
    );
    server.send_to(b"late", first).expect("a datagram");
    odyn_tests::process::until(
        std::time::Duration::from_secs(20),
        "the record of the flow",
        || {
            running
                .audit()
                .iter()
                .any(|record| record.protocol == "udp")
        },
    );
    touch("answered");
    let (_, second) = server.recv_from(&mut buffer).expect("a datagram");
    server.send_to(b"early", second).expect("a datagram");
    let out = running.finish();
    assert_eq!(out.ok(), "b'early'\n", "{}", out.describe());
    let flows = out.flows("udp", "203.0.113.20", 7);
    assert_eq!(flows.len(), 2, "{}", out.describe());
    assert_eq!(flows[0].end, "closed", "{}", out.describe());
    assert!(
        out.audit.iter().all(|record| record.protocol != "icmp"),
        "{}",
        out.describe()
    );
}
