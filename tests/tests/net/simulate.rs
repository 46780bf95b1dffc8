//! `odyn-net simulate`: a developer's machine, no root.

use odyn_tests::world::{NOBODY, as_user, executable};
use odyn_tests::{Process, World, audit, process, servers};
use std::process::Command;
use std::time::Duration;

use crate::{shop, start};

/// The command up to the program's words: an unprivileged user on the host.
fn simulate(world: &World, audit: &str) -> Command {
    let odyn = world.install(&executable("ODYN_NET", "odyn-net"));
    let mut command = world.host().command();
    command.arg("env").arg("--chdir").arg(world.scratch());
    as_user(&mut command, NOBODY);
    command.arg(odyn).arg("simulate");
    command.arg("--policy").arg(world.policy_file());
    command.args(["--audit", audit]).arg("--");
    command.env("CURL_CA_BUNDLE", world.dir().join("ca.pem"));
    command
}

#[test]
fn an_unprivileged_user_tests_a_policy() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let _nginx = servers::nginx(&world);
    let file = world.scratch().join("audit");
    let run = |url: &str| {
        let mut command = simulate(&world, &file.display().to_string());
        command.args(["curl", "-sS", "-m", "20", url]);
        let mut process = Process::spawn(command, &world.unique("simulate"), &world.logs(), true);
        let code = process::code(process.wait(Duration::from_secs(60)));
        let said = String::from_utf8_lossy(&process.stdout()).into_owned();
        let records = audit::read(&file);
        let _ = std::fs::remove_file(&file);
        (code, said, records)
    };
    let (code, said, records) = run("https://api.shop.example/whoami");
    assert_eq!(code, 0, "{said} {records:?}");
    assert!(said.starts_with("HTTP/2.0 api.shop.example "), "{said}");
    assert!(records.iter().any(|record| {
        record.protocol == "tcp" && record.verdict == "allow" && record.is_about("api.shop.example")
    }));
    let (code, said, records) = run("http://evil.example.net/whoami");
    assert_eq!(code, 6, "{said} {records:?}");
    assert!(records.iter().all(|record| record.verdict == "deny"));
    assert!(!records.is_empty());
}
