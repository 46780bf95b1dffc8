//! Nothing that the app wrote is lost when it ends: `docs/shutdown.md`.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use odyn_tests::deliver::{PYTHON_SEND, check, reader, whole};
use odyn_tests::guest::Output;
use odyn_tests::process::until;
use odyn_tests::{Guest, deliver, serve};

use crate::{shop, skipped_by_tun, start};

const MIB: u64 = 1024 * 1024;
const LONG: Duration = Duration::from_secs(60);

/// An app that has [`PYTHON_SEND`].
fn app(source: &str, words: &[&str]) -> Guest {
    Guest::python(&format!("{PYTHON_SEND}{source}"), words)
}

/// Connects, writes, exits.
const WRITE_AND_EXIT: &str =
    "send(socket.create_connection((sys.argv[1], 9000)), int(sys.argv[2]))\n";

/// Asserts that the app's one flow had its record, and lost nothing.
#[track_caller]
fn closed(out: &Output, bytes: u64) {
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 9000) {
        assert_eq!(flow.end, "closed", "{}", out.describe());
        assert_eq!(flow.bytes_sent, bytes, "{}", out.describe());
        assert_eq!(flow.bytes_undelivered, None);
    }
}

#[test]
fn an_app_that_writes_and_exits_at_once_loses_nothing() {
    let world = start!(shop());
    let total = 256 * MIB;
    let readers = reader(
        world.internet().listen("203.0.113.11:9000"),
        Some(20 * MIB),
        false,
    );
    // They wait for the reader most of the time.
    let runs: Vec<_> = (0..deliver::repeat()).collect();
    for some in runs.chunks(8) {
        let running: Vec<_> = some
            .iter()
            .map(|_| {
                app(WRITE_AND_EXIT, &["v4.shop.example", &total.to_string()])
                    .limit(Duration::from_secs(240))
                    .spawn(&world)
            })
            .collect();
        for _ in some {
            assert_eq!(whole(&readers), total);
        }
        for running in running {
            let out = running.finish();
            out.ok();
            closed(&out, total);
        }
    }
}

#[test]
fn odyn_net_ends_only_when_a_slow_reader_has_everything() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let listener = world.internet().listen("203.0.113.11:9000");
    // The reader's kernel takes little for it: what is not read is not delivered.
    setsockopt(&listener, sockopt::RcvBuf, &8192).expect("a socket");
    let mut running = app(WRITE_AND_EXIT, &["v4.shop.example", "3000000"]).spawn(&world);
    let (mut stream, _) = listener.accept().expect("a connection");
    // Slowly, until the guest has handed over everything and waits for the host.
    let mut read = 0;
    let mut some = [0; 4096];
    until(LONG, "the flush", || {
        stream.read_exact(&mut some).expect("bytes");
        read += some.len();
        world.guest_log().contains("Flushing")
    });
    assert!(read < 2_900_000, "nothing was left to wait for");
    assert!(running.process.ended().is_none(), "it did not wait");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an orderly end");
    assert_eq!(read + rest.len(), 3_000_000);
    let out = running.finish();
    out.ok();
    closed(&out, 3_000_000);
}

#[test]
fn the_last_answer_of_a_server_that_exits_arrives() {
    let world = start!(shop());
    // As an app does that polls for work: it asks, gets, answers at length, and exits.
    let listener = world.internet().listen("203.0.113.11:9000");
    let (send, results) = std::sync::mpsc::channel();
    serve::tcp(listener, move |mut stream| {
        let _ = stream.write_all(b"GET /everything HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        let body = deliver::check(&mut stream, Some(20 * MIB));
        let _ = send.send((head, body));
    });
    let total = 40 * MIB;
    let source = r#"
s = socket.create_connection((sys.argv[1], 9000))
request = b""
while not request.endswith(b"\r\n\r\n"): request += s.recv(1)
total = int(sys.argv[2])
s.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
send(s, total)
"#;
    let out = app(source, &["v4.shop.example", &total.to_string()]).run(&world);
    out.ok();
    let (head, body) = results.recv_timeout(LONG).expect("an answer");
    assert!(head.starts_with(b"HTTP/1.1 200 OK"));
    body.end.expect("an orderly end");
    assert_eq!(body.bytes, total);
}

#[test]
fn a_thousand_short_connections_lose_nothing() {
    let world = start!(shop());
    let readers = reader(world.internet().listen("203.0.113.11:9000"), None, false);
    // Each process connects, writes and exits at once; the last ones may not be accepted yet when
    // the app ends.
    let source = r#"
import resource, struct
to = socket.gethostbyname(sys.argv[1])
children = []
for n in range(20):
    pid = os.fork()
    if pid == 0:
        for m in range(50):
            s = socket.create_connection((to, 9000))
            send(s, 65536)
            s.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"#;
    let out = app(source, &["v4.shop.example"]).run(&world);
    out.ok();
    for _ in 0..1000 {
        assert_eq!(whole(&readers), 65_536);
    }
    if !world.direct() {
        let flows = out.flows("tcp", "v4.shop.example", 9000);
        assert_eq!(flows.len(), 1000);
        for flow in flows {
            assert_eq!(
                (flow.end.as_str(), flow.bytes_sent),
                ("closed", 65_536),
                "{flow:?}"
            );
        }
    }
}

#[test]
fn connections_that_are_not_accepted_yet_lose_nothing() {
    let world = start!(shop());
    let readers = reader(world.internet().listen("203.0.113.11:9000"), None, false);
    // All of them connect in one go, and the app is gone before odyn-net can look at most.
    let source = r#"
to = (socket.gethostbyname(sys.argv[1]), 9000)
sockets = []
for n in range(400):
    s = socket.socket()
    s.setblocking(False)
    s.connect_ex(to)
    sockets.append(s)
for s in sockets:
    s.setblocking(True)
    s.sendall(BLOCK[:1000])
os._exit(0)
"#;
    let out = app(source, &["v4.shop.example"]).run(&world);
    out.ok();
    for _ in 0..400 {
        assert_eq!(whole(&readers), 1000);
    }
    if !world.direct() {
        assert_eq!(out.flows("tcp", "v4.shop.example", 9000).len(), 400);
    }
}

#[test]
fn a_killed_app_loses_nothing() {
    let world = start!(shop());
    let readers = reader(
        world.internet().listen("203.0.113.11:9000"),
        Some(20 * MIB),
        false,
    );
    let source = "s = socket.create_connection((sys.argv[1], 9000))\n\
        send(s, int(sys.argv[2]))\n\
        os.kill(os.getpid(), 9)\n";
    let total = 40 * MIB;
    let out = app(source, &["v4.shop.example", &total.to_string()]).run(&world);
    assert_eq!(out.code, 137, "{}", out.describe());
    assert_eq!(whole(&readers), total);
    closed(&out, total);
}

#[test]
fn an_app_that_is_told_to_stop_loses_nothing() {
    let world = start!(shop());
    let readers = reader(
        world.internet().listen("203.0.113.11:9000"),
        Some(20 * MIB),
        false,
    );
    let source = "s = socket.create_connection((sys.argv[1], 9000))\n\
        send(s, int(sys.argv[2]))\n\
        print('written', flush=True)\n\
        s.recv(1)\n";
    let total = 20 * MIB;
    let mut running = app(source, &["v4.shop.example", &total.to_string()]).spawn(&world);
    running.process.wait_for("written", LONG);
    running.process.signal(Signal::SIGTERM);
    let out = running.finish();
    assert_eq!(out.code, 143, "{}", out.describe());
    assert_eq!(whole(&readers), total);
    closed(&out, total);
}

#[test]
fn a_peer_that_never_closes_does_not_hold_the_exit() {
    let world = start!(shop());
    let readers = reader(world.internet().listen("203.0.113.11:9000"), None, true);
    let started = Instant::now();
    let out = app(WRITE_AND_EXIT, &["v4.shop.example", "100000"])
        .flag("--drain-timeout=600s")
        .run(&world);
    out.ok();
    assert!(started.elapsed() < LONG, "it waited for the peer");
    assert_eq!(whole(&readers), 100_000);
    closed(&out, 100_000);
}

#[test]
fn a_peer_that_never_reads_is_reported_at_the_deadline() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let held = serve::never_read(world.internet().listen("203.0.113.11:9000"));
    // A flow beside it is delivered, and is not reported.
    let readers = reader(world.internet().listen("203.0.113.11:9001"), None, true);
    let source = "ok = socket.create_connection((sys.argv[1], 9001))\n\
        send(ok, 50000)\n\
        s = socket.create_connection((sys.argv[1], 9000))\n\
        s.settimeout(2)\n\
        try:\n    send(s, 1 << 30)\n\
        except TimeoutError:\n    sys.exit(7)\n";
    let started = Instant::now();
    let out = app(source, &["v4.shop.example"])
        .flag("--drain-timeout=2s")
        .run(&world);
    assert_eq!(out.code, 7, "{}", out.describe());
    assert!(started.elapsed() >= Duration::from_secs(2));
    let cut = out.flow("tcp", "v4.shop.example", 9000).expect("a record");
    assert_eq!(cut.end, "cut", "{}", out.describe());
    let undelivered = cut.bytes_undelivered.expect("a report");
    assert!(undelivered > 0 && undelivered < cut.bytes_sent, "{cut:?}");
    assert_eq!(whole(&readers), 50_000);
    let other = out.flow("tcp", "v4.shop.example", 9001).expect("a record");
    assert_eq!(other.end, "closed", "{}", out.describe());
    let log = world.guest_log();
    assert!(
        log.contains("flow cut") && log.contains("drained: flows were cut"),
        "{log}"
    );
    drop(held);
}

#[test]
fn a_second_signal_ends_the_drain() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let held = serve::never_read(world.internet().listen("203.0.113.11:9000"));
    let source = "s = socket.create_connection((sys.argv[1], 9000))\n\
        s.settimeout(2)\n\
        try:\n    send(s, 1 << 30)\n\
        except TimeoutError:\n    print('full', flush=True)\n\
        s.settimeout(None)\n\
        s.recv(1)\n";
    let mut running = app(source, &["v4.shop.example"])
        .flag("--drain-timeout=600s")
        .spawn(&world);
    running.process.wait_for("full", LONG);
    running.process.signal(Signal::SIGTERM);
    until(LONG, "the drain", || {
        world.guest_log().contains("app ended")
    });
    running.process.signal(Signal::SIGTERM);
    let out = running.finish();
    assert_eq!(out.code, 143, "{}", out.describe());
    let cut = out.flow("tcp", "v4.shop.example", 9000).expect("a record");
    assert_eq!(cut.end, "cut");
    assert!(cut.bytes_undelivered > Some(0), "{cut:?}");
    drop(held);
}

#[test]
fn what_an_app_wrote_waits_for_a_link_that_is_dialled_again() {
    let mut world = start!(shop());
    if world.direct() || skipped_by_tun("connect() waits for the host there") {
        return;
    }
    let readers = reader(world.internet().listen("203.0.113.20:9000"), None, false);
    let source = "print('ready', flush=True)\n\
        while not os.path.exists('go'): pass\n\
        send(socket.create_connection((sys.argv[1], 9000)), int(sys.argv[2]))\n";
    // A literal address: a name could not be resolved without the host.
    let mut running = app(source, &["203.0.113.20", "100000"]).spawn(&world);
    running.process.wait_for("ready", LONG);
    world.outer().kill();
    std::fs::write(world.scratch().join("go"), "").expect("own directory");
    until(LONG, "the drain", || {
        world.guest_log().contains("app ended")
    });
    world.start_outer();
    let out = running.finish();
    out.ok();
    assert_eq!(whole(&readers), 100_000);
    let flow = out.flow("tcp", "203.0.113.20", 9000).expect("a record");
    assert_eq!((flow.end.as_str(), flow.bytes_sent), ("closed", 100_000));
}

#[test]
fn datagrams_that_were_sent_right_before_the_exit_arrive() {
    let world = start!(shop());
    let socket = world.internet().udp("203.0.113.20:9000");
    socket.set_read_timeout(Some(LONG)).expect("a socket");
    // One flow that exists, and several that begin with the app's end.
    let source = r#"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(100): s.sendto(b"first %d" % n, (sys.argv[1], 9000))
for m in range(10):
    t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for n in range(10): t.sendto(b"%d %d" % (m, n), (sys.argv[1], 9000))
os._exit(0)
"#;
    let out = app(source, &["203.0.113.20"]).run(&world);
    out.ok();
    let mut buffer = [0; 100];
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let count = socket.recv(&mut buffer).expect("a datagram");
        seen.insert(buffer[..count].to_vec());
    }
    assert_eq!(seen.len(), 200);
    for flow in out.flows("udp", "203.0.113.20", 9000) {
        assert_eq!(flow.end, "closed", "{flow:?}");
    }
}

#[test]
fn nothing_open_takes_no_time_to_drain() {
    let world = start!(shop());
    let started = Instant::now();
    Guest::new(&["true"])
        .flag("--drain-timeout=600s")
        .run(&world)
        .ok();
    assert!(started.elapsed() < LONG);
}

#[test]
fn the_host_delivers_what_it_has_when_it_is_stopped() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    let listener = world.internet().listen("203.0.113.11:9000");
    let (opened, flow) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        opened.send(()).expect("the test waits");
        check(&mut stream, Some(20 * MIB))
    });
    let total = 60 * MIB;
    let running = app(WRITE_AND_EXIT, &["v4.shop.example", &total.to_string()]).spawn(&world);
    flow.recv_timeout(LONG).expect("the flow is opened");
    world.outer().signal(Signal::SIGTERM);
    let status = world.outer().wait(LONG);
    assert_eq!(odyn_tests::process::code(status), 0);
    let received = server.join().expect("the right bytes");
    received.end.expect("a FIN");
    assert_eq!(received.bytes, total);
    let out = running.finish();
    out.ok();
    closed(&out, total);
}

#[test]
fn the_host_reports_what_it_cuts() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    let held = serve::never_read(world.internet().listen("203.0.113.11:9000"));
    let source = "s = socket.create_connection((sys.argv[1], 9000))\n\
        s.settimeout(2)\n\
        try:\n    send(s, 1 << 30)\n\
        except TimeoutError:\n    print('full', flush=True)\n\
        s.settimeout(60)\n\
        try:\n    s.recv(1)\n\
        except ConnectionError:\n    print('reset', flush=True)\n";
    let mut running = app(source, &["v4.shop.example"]).spawn(&world);
    running.process.wait_for("full", LONG);
    world.outer().signal(Signal::SIGTERM);
    until(LONG, "the drain", || {
        log_text(world.outer().stderr()).contains("draining")
    });
    world.outer().signal(Signal::SIGTERM);
    assert_eq!(
        odyn_tests::process::code(world.outer().wait(LONG)),
        0,
        "a second signal is no failure"
    );
    let log = log_text(world.outer().stderr());
    let line = log.lines().find(|line| line.contains("flow cut"));
    let line = line.unwrap_or_else(|| panic!("no report: {log}"));
    assert!(
        line.contains("203.0.113.11:9000") && !line.contains("bytes_undelivered=0"),
        "{line}"
    );
    running.process.wait_for("reset", LONG);
    running.finish().ok();
    drop(held);
}

/// Without the colours.
fn log_text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
