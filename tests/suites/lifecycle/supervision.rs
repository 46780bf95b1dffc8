//! The app's processes: signals, orphans, leftovers, and their user.

use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::{Guest, World, serve};

use crate::{program, shop, start};

/// For what takes no time on any machine.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_signal_reaches_the_apps_whole_group() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let script = "\
        (trap 'echo child got it; exit' TERM; echo child ready; while :; do sleep 0.05; done) &\n\
        trap 'trap - TERM; wait; echo parent got it; exit 4' TERM\n\
        echo parent ready; while :; do sleep 0.05; done";
    let mut running = Guest::sh(script).spawn(&world);
    running.process.wait_for("child ready", SOON);
    running.process.wait_for("parent ready", SOON);
    running.process.signal(Signal::SIGTERM);
    let out = running.finish();
    assert_eq!(out.code, 4, "{}", out.describe());
    assert!(out.stdout.contains("child got it"), "{}", out.describe());
    assert!(out.stdout.contains("parent got it"), "{}", out.describe());
}

#[test]
fn every_signal_with_a_meaning_is_passed_on() {
    let world = start!(shop());
    let source = r#"
import os, signal, time
names = "TERM INT HUP QUIT USR1 USR2 WINCH CONT TSTP".split()
def got(number, frame): print("got", signal.Signals(number).name, flush=True)
for name in names: signal.signal(getattr(signal, "SIG" + name), got)
assert os.getpgrp() == os.getpid() or os.environ.get("DIRECT")
print("ready", flush=True)
while not os.path.exists("end"): time.sleep(0.01)
"#;
    let mut running = Guest::python(source, &[])
        .env("DIRECT", if world.direct() { "1" } else { "" })
        .spawn(&world);
    running.process.wait_for("ready", SOON);
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGCONT,
        Signal::SIGTSTP,
    ] {
        running.process.signal(signal);
        let got = format!("got {}", signal.as_str());
        running.process.wait_for(&got, SOON);
    }
    std::fs::write(world.scratch().join("end"), "").expect("own directory");
    running.finish().ok();
}

#[test]
fn the_app_starts_with_no_signal_ignored_or_blocked() {
    let world = start!(shop());
    let out = world.guest(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    // glibc keeps 32 and 33 for itself, and ignores them in what posix_spawn starts.
    const LIBC: u64 = 0x1_8000_0000;
    for line in out.ok().lines() {
        let (_, mask) = line.split_once('\t').expect("a name and a mask");
        let mask = u64::from_str_radix(mask, 16).expect("a number");
        assert_eq!(mask & !LIBC, 0, "{}", out.describe());
    }
}

#[test]
fn what_left_the_group_is_not_signalled_and_ends_with_the_app() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let ended = serve::collect(world.internet().listen("203.0.113.20:7000"));
    // A daemon that got away from its session, its parent and its group, and its own children.
    let daemon = r#"
import os, signal, socket, time
def got(number, frame): os.write(1, b"daemon was signalled\n")
signal.signal(signal.SIGTERM, got)
for generation in range(5):
    if os.fork(): os._exit(0)
    os.setsid()
connections = []
for child in range(3):
    if os.fork() == 0: break
s = socket.create_connection(("203.0.113.20", 7000))
s.send(b"x")
open("up-%d" % os.getpid(), "w").close()
while True: time.sleep(60)
"#;
    let script = "python3 -c \"$1\"; trap 'exit 5' TERM\n\
        while [ $(ls -d up-* 2>/dev/null | wc -l) -lt 4 ]; do sleep 0.02; done\n\
        echo ready; while :; do sleep 0.05; done";
    let mut running = Guest::new(&["sh", "-c", script, "sh", daemon])
        .flag("--drain-timeout=10m")
        .spawn(&world);
    running.process.wait_for("ready", SOON);
    running.process.signal(Signal::SIGTERM);
    let out = running.finish();
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (5, "ready\n"),
        "{}",
        out.describe()
    );
    for _ in 0..4 {
        assert_eq!(ended.recv_timeout(SOON).expect("the connection ends"), b"x");
    }
}

#[test]
fn ten_thousand_orphans_leave_no_zombie() {
    let world = start!(shop());
    // Each sub-shell ends before its child, which then belongs to odyn-net.
    let source = r#"
import os, subprocess, sys, time
subprocess.run(["sh", "-c", "i=0; while [ $i -lt 10000 ]; do (: &); i=$((i+1)); done"], check=True)
def zombies(parent):
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f: state, ppid = f.read().rsplit(")", 1)[1].split()[:2]
            found += state == "Z" and int(ppid) == parent
        except OSError:
            pass
    return found
deadline = time.monotonic() + 30
while (left := zombies(os.getppid())) and time.monotonic() < deadline: time.sleep(0.05)
print("zombies", left)
"#;
    let out = Guest::python(source, &[])
        .limit(Duration::from_secs(240))
        .run(&world);
    assert_eq!(out.ok(), "zombies 0\n");
}

#[test]
fn a_signal_without_a_name_is_an_end_like_any_other() {
    let world = start!(shop());
    let source = r#"
import os, signal, sys, time
if os.fork() == 0:
    # An orphan that a real-time signal ends, while odyn-net watches.
    if os.fork() == 0: os.kill(os.getpid(), signal.SIGRTMIN + 1)
    os._exit(0)
os.wait()
time.sleep(0.2)
print("alive", flush=True)
os.kill(os.getpid(), signal.SIGRTMIN)
"#;
    let out = world.python(source, &[]);
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (128 + 34, "alive\n"),
        "{}",
        out.describe()
    );
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n\
    app:x:4321:4300:An App:/srv/app:/bin/false\n";
const GROUP: &str = "root:x:0:\napps:x:4300:\nlogs:x:4301:syslog,app\nmedia:x:4302:app\n";

fn as_user(world: &World, user: &str) -> Vec<String> {
    let (passwd, group) = (world.file("passwd", PASSWD), world.file("group", GROUP));
    let script = "id -u; id -g; sed -n 's/^Groups:[[:space:]]*//p' /proc/self/status; \
        echo \"$HOME ${USER-unset} ${LOGNAME-unset}\"";
    let out = Guest::sh(script)
        .prelude(&format!(
            "mount --bind {} /etc/passwd; mount --bind {} /etc/group",
            passwd.display(),
            group.display()
        ))
        .env("HOME", "/root")
        .env("USER", "root")
        .flag("--user")
        .flag(user)
        .run(world);
    out.ok()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect()
}

#[test]
fn users_and_groups_by_name_and_by_number() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    for (user, wanted) in [
        (
            "app",
            ["4321", "4300", "4300 4301 4302", "/srv/app app app"],
        ),
        (
            "4321",
            ["4321", "4300", "4300 4301 4302", "/srv/app app app"],
        ),
        ("app:logs", ["4321", "4301", "4301", "/srv/app app app"]),
        ("app:77", ["4321", "77", "77", "/srv/app app app"]),
        ("999", ["999", "999", "999", "/ unset unset"]),
        ("root", ["0", "0", "0", "/root root unset"]),
    ] {
        assert_eq!(as_user(&world, user), wanted, "--user {user}");
    }
    for user in ["nosuch", "app:nosuch", ""] {
        let out = Guest::sh("touch started")
            .flag("--user")
            .flag(user)
            .run(&world);
        assert_eq!(out.code, 78, "--user {user:?}: {}", out.describe());
    }
    assert!(!world.scratch().join("started").exists());
}

#[test]
fn a_terminal_is_the_apps_and_comes_back() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let source = r#"
import os, signal, sys, time
assert os.tcgetpgrp(0) == os.getpgrp(), "not in the foreground"
print("ready", flush=True)
try:
    line = sys.stdin.readline()
    print("read", line.strip(), flush=True)
    while True: time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted", flush=True)
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"continued\n"))
print("ready to stop", flush=True)
while not os.path.exists("end"): time.sleep(0.01)
sys.exit(9)
"#;
    let out = Guest::python(source, &[])
        .wrap(&["python3", "-c", program!("terminal")])
        .run(&world);
    assert_eq!(out.code, 9, "{}", out.describe());
    let wanted = ["read hello", "interrupted", "STOPPED", "continued", "BACK"];
    for word in wanted {
        assert_eq!(
            out.stdout.matches(word).count(),
            1,
            "{word}: {}",
            out.describe()
        );
    }
}

#[test]
fn the_exit_code_needs_no_host() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    for stdio in ["host", "inherit"] {
        let out = Guest::sh("echo output; exit 5")
            .flag("--link=unix:///nowhere/link")
            .flag("--drain-timeout=1s")
            .flag(&format!("--stdio={stdio}"))
            .run(&world);
        assert_eq!(out.code, 5, "{}", out.describe());
    }
}
