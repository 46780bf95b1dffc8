//! How a guest is, as the operator of the host reads it.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::process::until;
use odyn_tests::world::{Builder, executable};
use odyn_tests::{Guest, World, process};
use serde_json::Value;

use crate::{SHOP, shop, start};

const SOON: Duration = Duration::from_secs(60);

fn watched() -> Builder {
    shop().outer(&["--control", "DIR/control.sock", "--guest-logs", "none"])
}

fn command(world: &World, words: &[&str]) -> Command {
    let mut command = Command::new(executable("ENCLAVER_OUTER", "enclaver-outer"));
    command.arg("status").arg("--control");
    command.arg(world.dir().join("control.sock")).args(words);
    command
}

/// The guests, as `enclaver-outer status --json` says.
fn guests(world: &World) -> Vec<Value> {
    let output = command(world, &["--json"]).output().expect("it runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    match status["guests"].take() {
        Value::Array(guests) => guests,
        other => panic!("no list: {other}"),
    }
}

fn wait_for(world: &World, state: &str) -> Value {
    let mut found = Value::Null;
    until(SOON, state, || {
        let guests = guests(world);
        found = guests.last().cloned().unwrap_or_default();
        found["state"] == state
    });
    found
}

#[test]
fn a_guest_is_followed_from_its_start_to_its_end() {
    let world = start!(watched());
    if world.direct() {
        return;
    }
    assert!(guests(&world).is_empty());
    // A connection that the server keeps: the guest drains until the server lets go.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    odyn_tests::serve::tcp(
        world.internet().listen("203.0.113.20:7000"),
        move |mut stream| {
            use std::io::{Read as _, Write as _};
            let _ = stream.write_all(b"x");
            let _ = held.lock().expect("one connection").recv();
            let _ = stream.read_to_end(&mut Vec::new());
        },
    );
    let source = r#"
import os, socket, sys, time
s = socket.create_connection(("203.0.113.20", 7000))
s.recv(1)
s.send(b"y" * 1000000)
while not os.path.exists("go"): time.sleep(0.01)
sys.exit(3)
"#;
    let running = Guest::python(source, &[]).spawn(&world);
    let guest = wait_for(&world, "running");
    assert_eq!(guest["name"], "tests");
    assert_eq!(guest["connected"], true);
    assert_eq!(guest["run"].as_str().map(str::len), Some(32));
    std::fs::write(world.scratch().join("go"), "").expect("own directory");
    // The server reads only when it is told to.
    wait_for(&world, "draining");
    release.send(()).expect("the server");
    let out = running.finish();
    assert_eq!(out.code, 3, "{}", out.describe());
    let guest = wait_for(&world, "exited");
    assert_eq!(guest["code"], 3);
    assert_eq!(guest["feeds"]["status"]["ended"], true);
    let table = command(&world, &[]).output().expect("it runs");
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(
        table.starts_with("GUEST") && table.contains("exited(3)"),
        "{table}"
    );
}

#[test]
fn every_end_has_its_name() {
    let world = start!(watched());
    if world.direct() {
        return;
    }
    Guest::sh("kill -KILL $$").run(&world);
    let guest = wait_for(&world, "signaled");
    assert_eq!(guest["signal"], "KILL");

    let missing = Guest::new(&["/nonexistent/program"]).run(&world);
    assert_eq!(missing.code, 127, "{}", missing.describe());
    until(SOON, "exited(127)", || {
        guests(&world).iter().any(|guest| guest["code"] == 127)
    });

    let refused = Guest::sh("touch started")
        .wrap(&[
            "setpriv",
            "--bounding-set",
            "-net_admin",
            "--inh-caps",
            "-net_admin",
        ])
        .run(&world);
    assert_eq!(refused.code, 71, "{}", refused.describe());
    let fatal: Vec<Value> = guests(&world)
        .into_iter()
        .filter(|guest| guest["state"] == "fatal")
        .collect();
    // The host had it before odyn-net was gone, and the person at the terminal has it too.
    assert_eq!(fatal.len(), 1, "{fatal:?}");
    let reason = fatal[0]["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("cannot capture") && refused.stderr.contains(reason),
        "{reason}: {}",
        refused.describe()
    );

    let user = Guest::sh("true").flag("--user=no-such-user").run(&world);
    assert_eq!(user.code, 78, "{}", user.describe());
    let is_told = |guest: &Value| {
        let reason = guest["reason"].as_str().unwrap_or_default();
        reason.contains("no-such-user")
    };
    assert!(guests(&world).iter().any(is_told));
}

#[test]
fn a_failure_waits_for_a_host_to_tell() {
    let mut world = start!(watched());
    if world.direct() {
        return;
    }
    world.outer().kill();
    let mut running = Guest::sh("true")
        .flag("--user=no-such-user")
        .flag("--drain-timeout=10m")
        .spawn(&world);
    until(SOON, "the reason on the console", || {
        String::from_utf8_lossy(&running.process.stderr()).contains("no-such-user")
    });
    assert!(running.process.ended().is_none(), "it did not wait");
    world.start_outer();
    assert_eq!(running.finish().code, 78);
    assert_eq!(wait_for(&world, "fatal")["name"], "tests");

    // And a signal ends the wait.
    world.outer().kill();
    let running = Guest::sh("true")
        .flag("--user=no-such-user")
        .flag("--drain-timeout=10m")
        .spawn(&world);
    until(SOON, "the reason on the console", || {
        String::from_utf8_lossy(&running.process.stderr()).contains("no-such-user")
    });
    until(SOON, "the end", || {
        let pid = running.process.pid();
        pid.is_none_or(|pid| {
            let _ = nix::sys::signal::kill(pid, Signal::SIGTERM);
            process::is_gone(pid)
        })
    });
    assert_eq!(running.into_code(), 78);
}

#[test]
fn watching_says_each_change_and_ends_with_the_host() {
    let mut world = start!(watched());
    if world.direct() {
        return;
    }
    let mut watch = process::Process::spawn(
        command(&world, &["--json", "--watch"]),
        "watch",
        &world.logs(),
        false,
    );
    watch.wait_for("\"guests\":[]", SOON);
    Guest::sh("exit 4").run(&world);
    watch.wait_for("\"state\":\"exited\",\"code\":4", SOON);
    world.outer().signal(Signal::SIGTERM);
    assert_eq!(process::code(watch.wait(SOON)), 69);
    world.outer().wait(SOON);
    assert!(!world.dir().join("control.sock").exists());
    let output = command(&world, &[]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no enclaver-outer answers"), "{said}");
}

#[test]
fn the_control_socket_of_a_killed_host_is_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = start!(watched());
    if world.direct() {
        return;
    }
    let socket = world.dir().join("control.sock");
    let mode = std::fs::metadata(&socket).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    world.outer().kill();
    assert!(socket.exists());
    world.start_outer();
    assert!(guests(&world).is_empty());
    let other = world.file("other.yaml", SHOP.replace("name: tests", "name: other"));
    Guest::sh("true").policy(other).run(&world).ok();
    assert_eq!(wait_for(&world, "exited")["name"], "other");
}
