//! What starts the app and what does not; its user, its streams and its exit code.

use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::Guest;

use crate::{shop, start};

#[test]
fn the_exit_code_is_the_apps() {
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
fn standard_output_and_error_are_the_apps_only() {
    let world = start!(shop());
    let out = Guest::sh(
        "printf 'out\\0put'; printf 'err\\nor' >&2; curl -s http://v4.shop.example/ || true",
    )
    .run(&world);
    assert_eq!(out.ok(), "out\0put");
    assert_eq!(out.stderr, "err\nor");
}

#[test]
fn standard_input_is_the_apps() {
    let world = start!(shop());
    let input = world.file("input", "one\ntwo\n");
    let out = Guest::new(&["cat"]).stdin(input).run(&world);
    assert_eq!(out.ok(), "one\ntwo\n");
}

#[test]
fn the_app_is_the_user_that_was_asked_for() {
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
fn a_signal_to_odyn_net_reaches_the_app() {
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
        "the app was started"
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
        "the app was started"
    );
}
