//! One host for several guests, and for several links.

use std::time::Duration;

use nix::sys::signal::Signal;
use odyn_tests::process::until;
use odyn_tests::{Guest, process, serve};

use crate::{program, shop, start};

#[test]
fn two_guests_share_a_host_and_nothing_else() {
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
fn the_host_listens_on_several_links() {
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
        until(Duration::from_secs(10), "the second host", || {
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
