//! Starting, ending, and being one program among others.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::process::until;
use odyn_tests::{Guest, process, serve, servers};

use crate::{neighbour, program, shop, skipped_by_tun, start};

#[test]
fn the_exit_code_is_the_programs() {
    let world = start!(shop());
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        let out = Guest::sh(script).run(&world);
        assert_eq!(out.code, code, "{script}\n{}", out.describe());
    }
    if world.direct() {
        return;
    }
    let out = world.guest(&["/nonexistent/program"]);
    assert_eq!(out.code, 127, "{}", out.describe());
    let text = world.file("not-executable", "text");
    let out = world.guest(&[&text.display().to_string()]);
    assert_eq!(out.code, 126, "{}", out.describe());
}

#[test]
fn standard_output_and_error_are_the_programs_only() {
    let world = start!(shop());
    let out = Guest::sh(
        "printf 'out\\0put'; printf 'err\\nor' >&2; curl -s http://v4.shop.example/ || true",
    )
    .run(&world);
    assert_eq!(out.ok(), "out\0put");
    assert_eq!(out.stderr, "err\nor");
}

#[test]
fn standard_input_is_the_programs() {
    let world = start!(shop());
    let input = world.file("input", "one\ntwo\n");
    let out = Guest::new(&["cat"]).stdin(input).run(&world);
    assert_eq!(out.ok(), "one\ntwo\n");
}

#[test]
fn the_program_is_the_user_that_was_asked_for() {
    let world = start!(shop());
    let script = "id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs|Groups)' /proc/self/status";
    let out = Guest::sh(script).run(&world);
    let lines: Vec<String> = out
        .ok()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(lines[0], "65534");
    assert!(
        lines.contains(&"CapEff: 0000000000000000".to_owned()),
        "{lines:?}"
    );
    assert!(lines.contains(&"NoNewPrivs: 1".to_owned()), "{lines:?}");
    assert!(
        ["Groups:", "Groups: 65534"]
            .iter()
            .any(|groups| lines.contains(&(*groups).to_owned())),
        "{lines:?}"
    );
}

#[test]
fn a_signal_to_odyn_net_reaches_the_program() {
    let world = start!(shop());
    let script = "trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = Guest::sh(script).spawn(&world);
    running.process.wait_for("ready", Duration::from_secs(20));
    running.process.signal(Signal::SIGTERM);
    let out = running.finish();
    assert_eq!(
        (out.stdout.as_str(), out.code),
        ("ready\ngot TERM\n", 3),
        "{}",
        out.describe()
    );
}

#[test]
fn a_bad_policy_starts_nothing() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    for (name, text, line) in [
        (
            "key.yaml",
            "version: v1\nname: t\negress:\n  alow:\n    - a.example\n",
            ":4",
        ),
        (
            "address.yaml",
            "version: v1\nname: t\negress:\n  allow:\n    - 10.1.0.0/33\n",
            ":5",
        ),
        ("syntax.yaml", "version: v1\nname: [\n", ""),
        ("empty.yaml", "", ""),
    ] {
        let policy = world.file(name, text);
        let place = format!("{}{line}", policy.display());
        let out = Guest::sh("touch started").policy(policy).run(&world);
        assert_eq!(out.code, 78, "{name}: {}", out.describe());
        assert!(
            out.stderr.contains(&place),
            "{name}: want {place}\n{}",
            out.describe()
        );
        assert!(out.stdout.is_empty());
    }
    let missing = world.dir().join("missing.yaml");
    let out = Guest::sh("touch started").policy(missing).run(&world);
    assert_eq!(out.code, 78, "{}", out.describe());
    assert!(
        !world.scratch().join("started").exists(),
        "the program was started"
    );
}

#[test]
fn without_the_right_to_capture_nothing_starts() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let out = Guest::sh("touch started")
        .wrap(&[
            "setpriv",
            "--bounding-set",
            "-net_admin",
            "--inh-caps",
            "-net_admin",
        ])
        .run(&world);
    assert_eq!(out.code, 71, "{}", out.describe());
    assert!(!out.stderr.is_empty(), "it does not say why");
    assert!(
        !world.scratch().join("started").exists(),
        "the program was started"
    );
}

#[test]
fn the_host_half_may_be_killed_and_started_again() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    let listener = world.internet().listen("203.0.113.11:7000");
    serve::tcp(listener, |mut stream| {
        use std::io::{Read as _, Write as _};
        let _ = stream.write_all(b"hello");
        let _ = stream.read(&mut [0; 1]);
    });
    let source = r#"
import os, socket, sys, time
def connect():
    s = socket.create_connection((sys.argv[1], 7000), timeout=10)
    s.settimeout(10)
    said = s.recv(10)
    if said != b"hello": raise OSError("said " + repr(said))
    return s
s = connect()
print("first", flush=True)
try:
    print("in the air: read", s.recv(1), flush=True)
except TimeoutError:
    print("in the air: hung", flush=True)
except OSError as error:
    print("in the air: failed", flush=True)
while not os.path.exists("go"): time.sleep(0.01)
for attempt in range(200):
    try:
        connect()
        print("again", flush=True)
        break
    except OSError as error:
        time.sleep(0.05)
"#;
    let mut running = Guest::python(source, &["v4.shop.example"]).spawn(&world);
    running.process.wait_for("first", Duration::from_secs(20));
    world.outer().kill();
    running
        .process
        .wait_for("in the air", Duration::from_secs(20));
    world.start_outer();
    fs::write(world.scratch().join("go"), "").expect("own directory");
    running.process.wait_for("again", Duration::from_secs(20));
    let out = running.finish();
    assert!(!out.ok().contains("hung"), "{}", out.describe());
    assert!(
        out.audit.iter().any(|record| record.end == "link-lost"),
        "{}",
        out.describe()
    );
}

#[test]
fn a_guest_may_start_before_its_host_half() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    world.outer().kill();
    let source = r#"
import socket, time
print("started", flush=True)
for attempt in range(400):
    try:
        with socket.create_connection(("203.0.113.20", 7000), timeout=10) as s:
            if s.recv(10):
                print("connected", flush=True)
                break
    except OSError:
        pass
    time.sleep(0.02)
"#;
    let running = Guest::python(source, &[]).spawn(&world);
    world.start_outer();
    let out = running.finish();
    assert_eq!(out.ok(), "started\nconnected\n", "{}", out.describe());
}

#[test]
fn two_guests_share_a_host_half_and_nothing_else() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("0.0.0.0:7000"), "hello");
    let other = world.file(
        "other.yaml",
        "version: v1\nname: other\negress:\n  allow:\n    - 203.0.113.30\n",
    );
    let source = format!(
        "import os, sys, time\n\
         open('up-' + sys.argv.pop(1), 'w')\n\
         while not (os.path.exists('up-a') and os.path.exists('up-b')): time.sleep(0.01)\n\
         {}",
        program!("connect")
    );
    let targets = ["tcp", "203.0.113.20", "7000", "203.0.113.30", "7000"];
    let words = |name| [&[name][..], &targets].concat();
    let first = Guest::python(&source, &words("a")).spawn(&world);
    let second = Guest::python(&source, &words("b"))
        .policy(other)
        .spawn(&world);
    let (first, second) = (first.finish(), second.finish());
    first.ok();
    second.ok();
    first.allowed("tcp", "203.0.113.20", 7000, "203.0.113.20");
    first.denied("tcp", "203.0.113.30", 7000, "no-rule");
    second.allowed("tcp", "203.0.113.30", 7000, "203.0.113.30");
    second.denied("tcp", "203.0.113.20", 7000, "no-rule");
}

#[test]
fn odyn_net_runs_again_in_a_namespace_where_it_was_killed() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    // The first run is killed with its program in the middle; the second
    // finds its rules, routes and addresses there.
    let odyn = odyn_tests::world::executable("ODYN_NET", "odyn-net");
    let prelude = format!(
        "{} run --policy {} --link {} -- sh -c 'echo $PPID >first; exec sleep 60' & first=$!\n\
         while [ ! -s first ]; do sleep 0.02; done\n\
         kill -KILL $first; wait $first || true",
        odyn.display(),
        world.policy_file().display(),
        world.link_url()
    );
    let out = Guest::python(
        program!("connect"),
        &["tcp", "203.0.113.20", "7000", "203.0.113.66", "7000"],
    )
    .prelude(&prelude)
    .run(&world);
    let lines: Vec<&str> = out.ok().lines().collect();
    assert_eq!(lines[0], "ok hello", "{}", out.describe());
    assert!(lines[1].starts_with("failed E"), "{}", out.describe());
}

#[test]
fn what_odyn_net_leaves_when_killed_lets_nothing_out() {
    let world = start!(shop());
    if world.direct() || skipped_by_tun("the guest has another interface") {
        return;
    }
    // If the program outlives odyn-net, it goes on trying, with a real network
    // in its reach.
    let source = r#"
import os, socket
attempts = 0
while True:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for host in ("203.0.113.66", "203.0.113.20", "192.0.2.201"):
            try:
                with socket.socket(socket.AF_INET, kind) as s:
                    s.settimeout(0.2)
                    s.connect((host, 7000))
                    s.send(b"leak")
                    s.recv(1)
            except OSError:
                pass
    attempts += 1
    with open("attempts", "w") as f: f.write(str(attempts))
"#;
    let file = world.scratch().join("attempts");
    let attempts = || -> u32 {
        fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    let running = Guest::python(source, &[])
        .prelude(&neighbour::prelude(&world))
        .spawn(&world);
    until(Duration::from_secs(20), "the program to try", || {
        attempts() > 2
    });
    let odyn = running.process.pid().expect("it runs");
    // The neighbour's processes are older children of the same process.
    let program = process::children(odyn).pop().expect("it has a program");
    running.process.signal(Signal::SIGKILL);
    let seen = attempts();
    until(
        Duration::from_secs(20),
        "the program to end or to try again",
        || process::is_gone(program) || attempts() > seen + 3,
    );
    assert_eq!(neighbour::leaks(&world), "", "packets left");
    assert_eq!(running.finish().code, 137);
}

#[test]
fn a_server_farm_of_clients_at_once() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let out = Guest::sh(
        "for n in 1 2 3 4 5 6 7 8; do \
           curl -sS https://api.shop.example/whoami >out$n & \
           dig +short +time=5 v4.shop.example >dig$n & \
         done; wait; cat out* | wc -l; cat dig* | wc -l",
    )
    .run(&world);
    let counts: Vec<&str> = out.ok().split_whitespace().collect();
    assert_eq!(counts, ["8", "8"], "{}", out.describe());
    if !world.direct() {
        assert_eq!(out.flows("tcp", "api.shop.example", 443).len(), 8);
    }
}

#[test]
fn the_host_half_listens_on_several_links() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    // hybrid: what a guest dials by vsock arrives at a Unix socket PATH_PORT.
    let path = |name: &str| world.dir().join(name).display().to_string();
    let outer = odyn_tests::world::executable("ENCLAVER_OUTER", "enclaver-outer");
    let (unix, hybrid) = (path("second.sock"), path("vm.sock"));
    let mut process = world.host_spawn(
        "outer2",
        &[
            &outer.display().to_string(),
            "run",
            "--listen",
            &format!("unix://{unix}"),
            "--listen",
            &format!("hybrid://{hybrid}:7000"),
        ],
    );
    for socket in [unix, format!("{hybrid}_7000")] {
        until(Duration::from_secs(10), "the second host half", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        let out = Guest::python(program!("connect"), &["tcp", "203.0.113.20", "7000"])
            .flag("--link")
            .flag(&format!("unix://{socket}"))
            .run(&world);
        assert_eq!(out.ok(), "ok hello\n", "{}", out.describe());
    }
    process.signal(Signal::SIGTERM);
    assert_eq!(process::code(process.wait(Duration::from_secs(20))), 0);
}
