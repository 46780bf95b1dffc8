//! `enclaver simulate`: a developer's machine, no root.

mod ingress;

use std::process::Command;
use std::time::Duration;

use odyn_tests::world::{NOBODY, as_user, executable};
use odyn_tests::{AuditRecord, Process, World, audit, process, serve, servers};

use crate::{program, shop, start};

/// A developer: an unprivileged user on the host.
struct Developer<'a> {
    world: &'a World,
    enclaver: std::path::PathBuf,
}

/// An app that says what a server says to it.
const GREETED: [&str; 6] = [
    "python3",
    "-c",
    program!("connect"),
    "tcp",
    "203.0.113.20",
    "7000",
];

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
    audit: Vec<AuditRecord>,
}

impl<'a> Developer<'a> {
    fn new(world: &'a World) -> Self {
        let enclaver = world.install(&executable("ENCLAVER", "enclaver"));
        Self { world, enclaver }
    }

    fn spawn(&self, flags: &[&str], words: &[&str]) -> Process {
        let mut command = self.world.host().command();
        command.arg("env").arg("--chdir").arg(self.world.scratch());
        as_user(&mut command, NOBODY);
        self.finish(command, flags, words)
    }

    fn finish(&self, mut command: Command, flags: &[&str], words: &[&str]) -> Process {
        command.arg(&self.enclaver).arg("simulate");
        command.arg("--policy").arg(self.world.policy_file());
        command.args(flags).arg("--").args(words);
        command.env("CURL_CA_BUNDLE", self.world.dir().join("ca.pem"));
        let world = self.world;
        Process::spawn(command, &world.unique("simulate"), &world.logs(), true)
    }

    fn run(&self, words: &[&str]) -> Run {
        let file = self.world.scratch().join("audit");
        let flag = file.display().to_string();
        let mut process = self.spawn(&["--audit", &flag], words);
        let code = process::code(process.wait(Duration::from_secs(60)));
        let audit = audit::read(&file);
        let _ = std::fs::remove_file(&file);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Run {
            code,
            stdout: text(process.stdout()),
            stderr: text(process.stderr()),
            audit,
        }
    }
}

#[test]
fn an_unprivileged_user_tests_a_policy() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let _nginx = servers::nginx(&world);
    let developer = Developer::new(&world);
    let run = developer.run(&["curl", "-sS", "-m", "20", "https://api.shop.example/whoami"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{:?}", run.audit);
    assert!(
        run.stdout.starts_with("HTTP/2.0 api.shop.example "),
        "{}",
        run.stdout
    );
    let mut flows = run.audit.iter().filter(|record| record.protocol == "tcp");
    let flow = flows.next().expect("a record");
    assert!(
        flow.verdict == "allow" && flow.is_about("api.shop.example"),
        "{flow:?}"
    );
    assert!(flows.next().is_none());
    let run = developer.run(&["curl", "-sS", "-m", "20", "http://evil.example.net/whoami"]);
    assert_eq!(run.code, 6, "{} {:?}", run.stderr, run.audit);
    assert!(run.audit.iter().all(|record| record.verdict == "deny"));
    assert!(!run.audit.is_empty());
}

#[test]
fn udp_and_denials_work_there_too() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::udp_echo(world.internet().udp("203.0.113.20:7"));
    serve::udp_echo(world.internet().udp("203.0.113.66:7"));
    let developer = Developer::new(&world);
    let python = ["python3", "-c", program!("connect")];
    let words = ["udp", "203.0.113.20", "7", "203.0.113.66", "7"];
    let run = developer.run(&[&python[..], &words].concat());
    assert_eq!(
        run.stdout, "ok ping\nfailed ECONNREFUSED\n",
        "{} {:?}",
        run.stderr, run.audit
    );
}

#[test]
fn exit_codes_and_streams_are_the_apps() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let developer = Developer::new(&world);
    for (script, code) in [
        ("exit 7", 7),
        ("kill -TERM $$", 143),
        ("nonexistent-program", 127),
    ] {
        assert_eq!(developer.run(&["sh", "-c", script]).code, code, "{script}");
    }
    assert_eq!(developer.run(&["/nonexistent/program"]).code, 127);
    let run = developer.run(&["sh", "-c", "printf out; printf err >&2"]);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out", "err"));
    // The developer's own user, files and directory.
    let run = developer.run(&["sh", "-c", "id -u; pwd; echo text >file; cat file"]);
    let scratch = world.scratch().display().to_string();
    assert_eq!(
        run.stdout,
        format!("65534\n{scratch}\ntext\n"),
        "{}",
        run.stderr
    );
}

#[test]
fn several_run_side_by_side() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    let developer = Developer::new(&world);
    let mut all: Vec<Process> = (0..4).map(|_| developer.spawn(&[], &GREETED)).collect();
    for process in &mut all {
        let code = process::code(process.wait(Duration::from_secs(60)));
        let said = String::from_utf8_lossy(&process.stdout()).into_owned();
        assert_eq!((code, said.as_str()), (0, "ok hello\n"));
    }
}

#[test]
fn root_may_simulate_as_well() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.20:7000"), "hello");
    let developer = Developer::new(&world);
    let mut process = developer.finish(world.host().command(), &[], &GREETED);
    assert_eq!(process::code(process.wait(Duration::from_secs(60))), 0);
    assert_eq!(process.stdout(), b"ok hello\n");
    assert_eq!(process.stderr(), b"");
}

#[test]
fn an_interrupt_ends_it_and_leaves_nothing() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let developer = Developer::new(&world);
    let mut process = developer.spawn(&[], &["sh", "-c", "echo started; exec sleep 60"]);
    process.wait_for("started", Duration::from_secs(20));
    let enclaver = process.pid().expect("it runs");
    let family = process::children(enclaver);
    process.signal(nix::sys::signal::Signal::SIGINT);
    assert_ne!(process::code(process.wait(Duration::from_secs(30))), 0);
    process::until(
        Duration::from_secs(10),
        "everything it started to end",
        || family.iter().all(|pid| process::is_gone(*pid)),
    );
}

#[test]
fn a_killed_simulation_leaves_no_process_and_only_its_link() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let developer = Developer::new(&world);
    let place = world.scratch().join("tmp");
    std::fs::create_dir(&place).expect("own directory");
    std::os::unix::fs::chown(&place, Some(NOBODY), Some(NOBODY)).expect("root may");
    let mut command = world.host().command();
    command
        .arg("env")
        .arg(format!("TMPDIR={}", place.display()));
    as_user(&mut command, NOBODY);
    let words = ["sh", "-c", "echo started; exec sleep 60"];
    let mut process = developer.finish(command, &[], &words);
    process.wait_for("started", Duration::from_secs(20));
    let enclaver = process.pid().expect("it runs");
    let guest = process::children(enclaver).pop().expect("it has a guest");
    let app = process::children(guest).pop().expect("it has an app");
    process.signal(nix::sys::signal::Signal::SIGKILL);
    process::until(
        Duration::from_secs(20),
        "everything it started to end",
        || [enclaver, guest, app].map(process::is_gone) == [true; 3],
    );
    let left: Vec<_> = std::fs::read_dir(&place)
        .expect("own directory")
        .flatten()
        .flat_map(|entry| {
            std::fs::read_dir(entry.path())
                .expect("a directory")
                .flatten()
        })
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["link"]);
}
