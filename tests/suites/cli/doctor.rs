//! `enclaver doctor`: what it says about this kernel and these rights, about configurations of
//! kernels, and that it changes nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use odyn_tests::world::{NOBODY, as_user, executable};
use odyn_tests::{Process, World, process};
use serde_json::Value;

use crate::start;

/// The checks that the nftables capture needs.
const NFTABLES: [&str; 9] = [
    "nf-tables",
    "nft-nat",
    "nft-route",
    "nft-fib",
    "nft-reject",
    "nft-tproxy",
    "nft-log",
    "routing-rules",
    "nft-capture",
];

/// Everything about a network namespace that capture could change, and what it could leave behind.
const STATE: &str = "nft list ruleset; ip address; ip route show table all; ip -6 route show table all; \
                     ip rule; ip -6 rule; ip link; ls /proc/sys/net/ipv6/conf; \
                     cat /proc/sys/net/ipv6/conf/*/disable_ipv6";

struct Report {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Report {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

#[track_caller]
fn verdict(report: &Value, id: &str) -> String {
    let checks = report["checks"].as_array().expect("checks");
    let mut found = checks.iter().filter(|check| check["id"] == id);
    let check = found.next().unwrap_or_else(|| panic!("no check {id}"));
    assert!(found.next().is_none(), "two checks {id}");
    check["verdict"].as_str().expect("a verdict").to_owned()
}

/// Words before `enclaver doctor`, and its flags.
fn doctor(world: &World, wrap: &[&str], flags: &[&str]) -> Report {
    let mut command = world.host().command();
    command.args(wrap);
    finish(world, command, flags)
}

fn finish(world: &World, mut command: Command, flags: &[&str]) -> Report {
    command.arg(enclaver(world)).arg("doctor").args(flags);
    command
        .env_remove("ODYN_LINK")
        .env_remove("ODYN_CAPTURE")
        .env_remove("ODYN_CONFIG");
    let mut process = Process::spawn(command, &world.unique("doctor"), &world.logs(), true);
    let code = process::code(process.wait(Duration::from_secs(60)));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Report {
        code,
        stdout: text(process.stdout()),
        stderr: text(process.stderr()),
    }
}

/// The executable, where every user may run it.
fn enclaver(world: &World) -> PathBuf {
    let installed = world.dir().join("bin").join("enclaver");
    if installed.exists() {
        return installed;
    }
    world.install(&executable("ENCLAVER", "enclaver"))
}

fn state(world: &World) -> String {
    let mut command = world.host().command();
    command.args(["sh", "-c", STATE]);
    process::run(command)
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../cli/src/doctor/kernel_config/fixtures")
        .join(name)
        .display()
        .to_string()
}

#[test]
fn root_in_a_namespace_of_its_own_is_ready() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    let report = doctor(&world, &["unshare", "--net", "--"], &["--json"]);
    assert_eq!(report.code, 0, "{}{}", report.stdout, report.stderr);
    let json = report.json();
    assert_eq!(json["ready"], true);
    assert_eq!(json["capture"], "nftables");
    assert_eq!(json["blocking"].as_array().map(Vec::len), Some(0));
    for id in NFTABLES {
        assert_eq!(verdict(&json, id), "present", "{id}: {}", report.stdout);
    }
    for id in [
        "seccomp",
        "net-admin",
        "net-raw",
        "proc",
        "loopback",
        "other-interfaces",
    ] {
        assert_eq!(verdict(&json, id), "present", "{id}: {}", report.stdout);
    }
    for check in json["checks"].as_array().expect("checks") {
        for key in ["title", "needed_for"] {
            assert_ne!(check[key].as_str().unwrap_or_default(), "", "{check}");
        }
        assert_ne!(
            check["required_by"].as_array().map(Vec::len),
            Some(0),
            "{check}"
        );
        // Whatever is not there comes with what to do about it.
        let fix = check["fix"].as_str();
        assert_eq!(fix.is_none(), check["verdict"] == "present", "{check}");
    }
    let text = doctor(&world, &[], &[]).stdout;
    assert!(
        text.contains("\ncapture that would be used: nftables\n"),
        "{text}"
    );
}

#[test]
fn it_changes_nothing() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    // A table of the name that capture replaces: a trial in the wrong place would take it away.
    let mut command = world.host().command();
    command.args(["nft", "add table inet odyn; add chain inet odyn witness"]);
    process::run(command);
    // The kernel itself is still at work on the cable and its link-local address.
    process::until(Duration::from_secs(20), "the addresses to settle", || {
        let state = state(&world);
        !state.contains("tentative") && state.contains("state UP")
    });
    let before = state(&world);
    assert!(before.contains("witness"), "{before}");
    let json = doctor(&world, &[], &["--json"]).json();
    // It did try, and it sees the cable of this namespace.
    assert_eq!(verdict(&json, "nft-capture"), "present");
    assert_eq!(verdict(&json, "other-interfaces"), "missing");
    assert_eq!(state(&world), before);
    let mut command = world.host().command();
    as_user(&mut command, NOBODY);
    finish(&world, command, &[]);
    assert_eq!(state(&world), before);
}

#[test]
fn without_the_right_to_capture_it_says_so() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    let without = [
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps=-all",
        "--",
    ];
    let report = doctor(&world, &without, &["--json"]);
    assert_eq!(report.code, 1, "{}{}", report.stdout, report.stderr);
    let json = report.json();
    assert_eq!(json["capture"], Value::Null);
    assert_eq!(json["blocking"], serde_json::json!(["net-admin"]));
    // The kernel is not to blame, and was looked at all the same.
    assert_eq!(verdict(&json, "nft-capture"), "present");
    let text = doctor(&world, &without, &[]).stdout;
    assert!(text.contains("this process lacks CAP_NET_ADMIN"), "{text}");
    assert!(
        text.contains("\ncapture that would be used: none\n"),
        "{text}"
    );
}

#[test]
fn an_ordinary_user_is_told_about_rights_and_about_simulate() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    let mut command = world.host().command();
    as_user(&mut command, NOBODY);
    let report = finish(&world, command, &[]);
    assert_eq!(report.code, 1, "{}{}", report.stdout, report.stderr);
    assert!(
        report.stdout.contains("\nin the way: net-admin, net-raw\n"),
        "{}",
        report.stdout
    );
    assert!(
        report.stdout.contains("`enclaver simulate` would work"),
        "{}",
        report.stdout
    );
}

#[test]
fn where_nothing_can_be_tried_nothing_is_claimed() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    // A user who may make no namespace: neither by rights nor by user namespaces.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces
                  exec setpriv --bounding-set=-all --inh-caps=-all -- \"$@\"";
    let wrap = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-ec",
        script,
        "sh",
    ];
    let report = doctor(&world, &wrap, &["--json"]);
    assert_eq!(report.code, 1, "{}{}", report.stdout, report.stderr);
    let json = report.json();
    for id in NFTABLES {
        assert_eq!(verdict(&json, id), "unknown", "{id}: {}", report.stdout);
    }
    assert_ne!(verdict(&json, "namespaces"), "present");
    let note = json["note"].as_str().unwrap_or_default();
    assert!(note.contains("run this as root"), "{note}");
}

#[test]
fn configurations_are_judged() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    let judge = |file: &str, more: &[&str]| {
        let flags = [&["--json", "--kernel-config", file], more].concat();
        doctor(&world, &[], &flags)
    };
    let debian = judge(&fixture("debian-cloud-6.1.config"), &[]);
    assert_eq!(debian.code, 0, "{}{}", debian.stdout, debian.stderr);
    assert_eq!(debian.json()["capture"], "nftables");
    assert_eq!(debian.json()["kernel"], "Linux 6.1.192");
    for name in ["nitro-cli-4.14.config", "sdk-bootstrap-6.6.config"] {
        let stock = judge(&fixture(name), &["--capture", "nftables"]);
        assert_eq!(stock.code, 1, "{}{}", stock.stdout, stock.stderr);
        let json = stock.json();
        assert_eq!(verdict(&json, "nf-tables"), "missing");
        assert_eq!(verdict(&json, "tun"), "present");
        assert_ne!(judge(&fixture(name), &[]).json()["capture"], "nftables");
        let advice = json["advice"].to_string();
        assert!(advice.contains("CONFIG_NF_TABLES_INET"), "{advice}");
    }
    // An image without vsock reaches no host, unless the link is another.
    let text = std::fs::read_to_string(fixture("debian-cloud-6.1.config")).expect("a fixture");
    let deaf = world.file("deaf.config", text.replace("VSOCKETS=m", "VSOCKETS=n"));
    let deaf = deaf.display().to_string();
    assert_eq!(judge(&deaf, &[]).code, 1);
    assert_eq!(judge(&deaf, &["--link", "unix:///run/link"]).code, 0);
    let settings = world.file("odyn-net.yaml", "link: unix:///run/link\n");
    let settings = settings.display().to_string();
    assert_eq!(judge(&deaf, &["--config", &settings]).code, 0);
}

#[test]
fn what_is_no_configuration_is_refused_with_its_place() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    let judge = |file: &str| doctor(&world, &[], &["--kernel-config", file]);
    let missing = judge("/nonexistent/.config");
    assert_eq!(missing.code, 66, "{}", missing.stderr);
    assert!(
        missing.stderr.contains("/nonexistent/.config"),
        "{}",
        missing.stderr
    );
    let policy = world.file("policy-like.yaml", "# comment\nversion: v1\n");
    let refused = judge(&policy.display().to_string());
    assert_eq!(refused.code, 65, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("line 2: \"version: v1\""),
        "{}",
        refused.stderr
    );
    let packed = world.file("config.gz", b"\x1f\x8b\x08\0");
    let refused = judge(&packed.display().to_string());
    assert_eq!(refused.code, 65, "{}", refused.stderr);
    assert!(refused.stderr.contains("zcat"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    assert_eq!(doctor(&world, &[], &["--capture", "magic"]).code, 64);
}

#[test]
fn a_configuration_may_come_by_a_pipe() {
    let world = start!(World::builder());
    if world.direct() {
        return;
    }
    let mut child = Command::new(executable("ENCLAVER", "enclaver"))
        .args(["doctor", "--json", "--kernel-config", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("odyn-net starts");
    let text = std::fs::read(fixture("debian-cloud-6.1.config")).expect("a fixture");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&text).expect("doctor reads");
    drop(stdin);
    let output = child.wait_with_output().expect("a child");
    assert!(output.status.success());
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["ready"], true);
}
