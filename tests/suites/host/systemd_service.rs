//! The host as a service of a real systemd, by the units as they are shipped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use odyn_tests::process::until;
use odyn_tests::systemd::Systemd;
use odyn_tests::{Guest, World, serve};

use crate::{program, shop, start};

const UNIT: &str = "enclaver-outer.service";
const LISTEN: &str = "listen: unix:///run/enclaver-outer/link.sock\n";

/// Stronger than the file.
const BOTH: &str = "OUTER_LISTEN=unix:///run/enclaver-outer/link.sock,vsock://any:";

fn has_vsock() -> bool {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    socket(
        AddressFamily::Vsock,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .is_ok()
}

fn guest(systemd: &Systemd, guest: Guest) -> Guest {
    linked(systemd, "enclaver-outer", guest)
}

/// A guest whose link is the service's.
fn linked(systemd: &Systemd, directory: &str, guest: Guest) -> Guest {
    let path = systemd.run_path(&format!("{directory}/link.sock"));
    guest
        .flag("--link")
        .flag(&format!("unix://{}", path.display()))
}

/// TCP by name, UDP, both in the sandbox of the unit.
fn reaches_the_internet(world: &World, systemd: &Systemd, directory: &str) {
    let probe = Guest::python(program!("connect"), &["tcp", "v4.shop.example", "7000"]);
    let out = linked(systemd, directory, probe).run(world);
    assert_eq!(out.ok(), "ok hello\n", "{}", systemd.journal());
    let probe = Guest::python(program!("connect"), &["udp", "203.0.113.20", "7001"]);
    let out = linked(systemd, directory, probe).run(world);
    assert_eq!(out.ok(), "ok ping\n", "{}", systemd.journal());
}

fn servers(world: &World) {
    serve::banner(world.internet().listen("203.0.113.11:7000"), "hello");
    serve::udp_echo(world.internet().udp("203.0.113.20:7001"));
}

#[test]
fn it_serves_reloads_and_comes_back_under_its_sandbox() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    servers(&world);
    let systemd = Systemd::boot(&world, &[("outer.yaml", LISTEN)]);
    // What every parent of an enclave does. The sandbox has no device for it, and needs none.
    if has_vsock() {
        let port = 1 << 20 | std::process::id();
        let vsock = format!("[Service]\nEnvironment=\"{BOTH}{port}\"\n");
        systemd.drop_in(UNIT, &vsock);
    }
    systemd.systemctl(&["start", UNIT]);
    if has_vsock() {
        systemd.wait_for(UNIT, "StatusText", "vsock://any:");
    }
    // `start` has waited for READY.
    assert_eq!(systemd.property(UNIT, "SubState"), "running");
    systemd.wait_for(
        UNIT,
        "StatusText",
        "no guest linked; listening on unix:///run/",
    );
    assert_ne!(systemd.property(UNIT, "UID"), "0");
    reaches_the_internet(&world, &systemd, "enclaver-outer");

    let denying = format!("{LISTEN}deny: [203.0.113.0/24]\n");
    systemd.settings("outer.yaml", &denying);
    systemd.systemctl(&["reload", UNIT]);
    until(Duration::from_secs(60), "the reload", || {
        systemd.journal().contains("reloaded changed=\"deny\"")
    });
    let probe = Guest::python(program!("connect"), &["tcp", "203.0.113.20", "7000"]);
    let out = guest(&systemd, probe).run(&world);
    assert!(out.ok().starts_with("failed "), "{}", out.describe());

    systemd.settings("outer.yaml", &format!("{LISTEN}denny: []\n"));
    systemd.systemctl(&["reload", UNIT]);
    let status = systemd.wait_for(UNIT, "StatusText", "last reload failed");
    let errors = systemd.run(&[
        "journalctl",
        "--no-pager",
        "--priority",
        "err",
        "--unit",
        UNIT,
    ]);
    assert!(
        errors.contains("not reloaded") && !errors.contains("listening"),
        "{errors}"
    );
    assert!(status.contains("outer.yaml:2:1"), "{status}");
    systemd.settings("outer.yaml", LISTEN);
    systemd.systemctl(&["reload", UNIT]);
    systemd.wait_for(UNIT, "StatusText", "no guest linked; listening on");

    // Killed, it comes back, on the same socket.
    systemd.systemctl(&["kill", "--signal=KILL", UNIT]);
    systemd.wait_for(UNIT, "NRestarts", "1");
    systemd.wait_for(UNIT, "SubState", "running");
    reaches_the_internet(&world, &systemd, "enclaver-outer");
    let journal = systemd.journal();
    assert!(!journal.contains("Operation not permitted"), "{journal}");
}

#[test]
fn a_start_can_wait_for_the_app_of_a_guest() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let settings = format!("{LISTEN}ready_when: running\n");
    let systemd = Systemd::boot(&world, &[("outer.yaml", &settings)]);
    systemd.systemctl(&["start", "--no-block", UNIT]);
    systemd.wait_for(
        UNIT,
        "StatusText",
        "not ready: waiting for a guest on unix://",
    );
    assert_eq!(systemd.property(UNIT, "ActiveState"), "activating");
    let _guest = guest(&systemd, Guest::new(&["sleep", "infinity"])).spawn(&world);
    systemd.wait_for(UNIT, "ActiveState", "active");
    systemd.wait_for(UNIT, "StatusText", "1 guest linked (1 running) by ");
}

#[test]
fn a_stop_waits_for_a_slow_flow() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let listener = world.internet().listen("203.0.113.20:7002");
    let (go_on, may_go_on) = channel::<()>();
    let (said, hears) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut lines = BufReader::new(stream.try_clone().expect("a socket"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        said.send(line).expect("the test listens");
        may_go_on.recv().expect("the test says so");
        stream.write_all(b"go on\n").expect("the client listens");
        let mut rest = String::new();
        lines.read_to_string(&mut rest).expect("an end");
        said.send(rest).expect("the test listens");
    });
    let systemd = Systemd::boot(&world, &[("outer.yaml", LISTEN)]);
    systemd.drop_in(UNIT, "[Service]\nTimeoutStopSec=2s\n");
    systemd.systemctl(&["start", UNIT]);
    let script = "exec 3<>/dev/tcp/203.0.113.20/7002; echo hello >&3; read -r line <&3; \
        echo \"$line\"; echo done >&3";
    let client = guest(&systemd, Guest::new(&["bash", "-c", script])).spawn(&world);
    let limit = Duration::from_secs(60);
    assert_eq!(hears.recv_timeout(limit).expect("the client"), "hello\n");
    systemd.wait_for(UNIT, "StatusText", "1 guest linked (1 running) by ");

    systemd.systemctl(&["stop", "--no-block", UNIT]);
    systemd.wait_for(UNIT, "StatusText", "1 flow of 1 guest open, cut in ");
    // Longer than systemd would wait if it were not asked for more.
    until(limit, "a drain of 5 s", || {
        let status = systemd.property(UNIT, "StatusText");
        let seconds = status
            .strip_prefix("draining for ")
            .and_then(|rest| rest.split(' ').next());
        seconds.is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 5))
    });
    assert_eq!(systemd.property(UNIT, "ActiveState"), "deactivating");
    go_on.send(()).expect("the server waits");
    assert_eq!(hears.recv_timeout(limit).expect("the client"), "done\n");
    assert_eq!(client.finish().ok(), "go on\n");
    systemd.wait_for(UNIT, "ActiveState", "inactive");
    assert_eq!(systemd.property(UNIT, "Result"), "success");
    assert!(!systemd.run_path("enclaver-outer").exists(), "left behind");
}

#[test]
fn clients_come_to_a_low_port_by_the_documented_drop_in() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let settings = format!("{LISTEN}ingress: '80=192.0.2.2:80'\n");
    let systemd = Systemd::boot(&world, &[("outer.yaml", &settings)]);
    let capability = "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n\
        AmbientCapabilities=CAP_NET_BIND_SERVICE\n";
    systemd.drop_in(UNIT, &format!("[Service]\nPrivateUsers=no\n{capability}"));
    systemd.systemctl(&["start", UNIT]);
    let policy = "version: v1\nname: web\ningress:\n  - listen_port: 80\n    target_port: 8080\n";
    let policy = world.file("web.yaml", policy);
    let app = Guest::python(program!("app"), &["after-end", "8080"]).policy(policy);
    let _running = guest(&systemd, app).spawn(&world);
    let limit = Duration::from_secs(60);
    until(limit, "the port", || {
        systemd.journal().contains("listening for clients")
    });
    let mut stream = world.internet().enter(|| {
        let address = "192.0.2.2:80".parse().expect("an address");
        let stream = TcpStream::connect_timeout(&address, limit).expect("it listens");
        stream.set_read_timeout(Some(limit)).expect("a socket");
        stream
    });
    stream.write_all(b"hello").expect("a connection");
    stream.shutdown(Shutdown::Write).expect("a connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "5\nhello");
}

#[test]
fn instances_are_apart_and_a_hung_one_is_replaced() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    servers(&world);
    let settings = |name: &str| format!("listen: unix:///run/enclaver-outer@{name}/link.sock\n");
    let closed = format!("{}deny: [203.0.113.0/24]\n", settings("closed"));
    let systemd = Systemd::boot(
        &world,
        &[("open.yaml", &settings("open")), ("closed.yaml", &closed)],
    );
    let units = ["enclaver-outer@open", "enclaver-outer@closed"];
    // Sooner than in the unit, for the test's sake.
    systemd.drop_in(
        "enclaver-outer@.service",
        "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n",
    );
    systemd.systemctl(&["start", units[0], units[1]]);
    let users = units.map(|unit| systemd.property(unit, "UID"));
    assert_ne!(users[0], users[1]);
    reaches_the_internet(&world, &systemd, "enclaver-outer@open");
    let probe = Guest::python(program!("connect"), &["tcp", "203.0.113.20", "7000"]);
    let out = linked(&systemd, "enclaver-outer@closed", probe).run(&world);
    assert!(out.ok().starts_with("failed "), "{}", out.describe());

    // The one that does not beat any more is killed and started again; the other goes on.
    let pid = systemd.property(units[1], "MainPID");
    systemd.run(&["kill", "-STOP", &pid]);
    systemd.wait_for(units[1], "NRestarts", "1");
    systemd.wait_for(units[1], "SubState", "running");
    assert_ne!(systemd.property(units[1], "MainPID"), pid);
    assert!(systemd.journal().contains("Watchdog timeout"), "why else?");
    assert_eq!(systemd.property(units[0], "NRestarts"), "0");
}
