//! No vsock for the app, and no way into odyn-net: each way is really tried.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use odyn_tests::process::run;
use odyn_tests::{Guest, Output, World};

use crate::{shop, start};

/// The probes, compiled here and now, and where every user may run them.
fn probes(world: &World) -> PathBuf {
    let source = world.file("ways_out.c", include_str!("../../programs/ways_out.c"));
    let target = world.dir().join("bin/ways_out");
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-Wall", "-Werror", "-o"]);
    compile.arg(&target).arg(source);
    run(compile);
    target
}

fn probe(world: &World, what: &str) -> Guest {
    Guest::new(&[&probes(world).display().to_string(), what])
}

/// The result of each try, by its name.
fn tries(out: &Output) -> BTreeMap<&str, &str> {
    let tries: BTreeMap<_, _> = out
        .ok()
        .lines()
        .map(|line| line.split_once(' ').expect("a name and an outcome"))
        .collect();
    assert!(tries.len() > 7, "{}", out.describe());
    tries
}

/// Outcomes in a guest; and whether the same works outside, on this machine.
const VSOCK: &[(&str, &str, bool)] = &[
    ("plain", "failed EAFNOSUPPORT", true),
    ("datagram", "failed EAFNOSUPPORT", false), // no transport here has datagrams
    ("high_bits", "failed EAFNOSUPPORT", true),
    ("sign_bits", "failed EAFNOSUPPORT", true),
    ("pair", "failed EAFNOSUPPORT", false), // no kernel has it
    (
        "in_a_thread_of_execution_by_clone",
        "failed EAFNOSUPPORT",
        true,
    ),
    ("in_namespaces", "failed EAFNOSUPPORT", true),
    ("io_uring", "failed ENOSYS", true),
    ("by_a_supervisor", "failed EAFNOSUPPORT", true),
];

#[cfg(target_arch = "x86_64")]
const VSOCK_X86: &[(&str, &str, bool)] = &[
    ("int80_socket", "killed 31", true),
    ("int80_socketcall", "killed 31", true),
    ("int80_io_uring", "killed 31", true),
    ("x32_socket", "failed EAFNOSUPPORT", false), // hardly a kernel has x32
    ("x32_io_uring", "failed ENOSYS", false),
    ("traced_at_entry", "failed EAFNOSUPPORT", true),
    ("traced_by_a_filter", "failed EAFNOSUPPORT", true),
];
#[cfg(not(target_arch = "x86_64"))]
const VSOCK_X86: &[(&str, &str, bool)] = &[];

/// An app that is root gets no user namespace at all.
#[track_caller]
fn check_root(out: &Output) {
    let text = out.stdout.replace(
        "in_namespaces failed EPERM",
        "in_namespaces failed EAFNOSUPPORT",
    );
    assert!(out.direct || text != out.stdout, "{}", out.describe());
    check(&Output {
        stdout: text,
        stderr: out.stderr.clone(),
        audit: Vec::new(),
        ..*out
    });
}

#[track_caller]
fn check(out: &Output) {
    let tries = tries(out);
    let wanted = VSOCK.iter().chain(VSOCK_X86);
    assert_eq!(tries.len(), wanted.clone().count(), "{}", out.describe());
    for (name, denied, works_outside) in wanted {
        match (out.direct, works_outside) {
            (false, _) => assert_eq!(tries[name], *denied, "{name}: {}", out.describe()),
            (true, true) => assert_eq!(tries[name], "worked", "{name}: {}", out.describe()),
            (true, false) => {}
        }
    }
}

#[test]
fn no_abi_and_no_trick_makes_a_vsock_socket() {
    let world = start!(shop());
    check(&probe(&world, "vsock").run(&world));
    check_root(&probe(&world, "vsock").root().run(&world));
}

#[test]
fn the_filter_outlives_every_exec() {
    let world = start!(shop());
    let way = probes(&world).display().to_string();
    let script = format!("sh -c 'setsid env -i {way} vsock; true'; true");
    check(&Guest::sh(&script).run(&world));
}

#[test]
fn a_set_user_id_app_gives_nothing() {
    let world = start!(shop());
    let way = probes(&world);
    std::fs::set_permissions(&way, std::fs::Permissions::from_mode(0o4755)).expect("own file");
    // It does give root to who may take it.
    let mut outside = Command::new("setpriv");
    outside.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    outside.arg(&way).arg("id");
    assert_eq!(run(outside), "0\n");
    let way = way.display().to_string();
    assert_eq!(world.guest(&[&way, "id"]).ok(), "65534\n");
    if !world.direct() {
        check(&world.guest(&[&way, "vsock"]));
    }
}

/// A process that executes the rest of its words with a vsock socket as this descriptor.
fn with_vsock_at(descriptor: &str) -> [&str; 4] {
    const SOURCE: &str = "import os, socket, sys\n\
        s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)\n\
        os.dup2(s.fileno(), int(sys.argv[1]))\n\
        os.execvp(sys.argv[2], sys.argv[2:])";
    ["python3", "-c", SOURCE, descriptor]
}

#[test]
fn descriptors_of_odyn_net_are_not_inherited() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let out = Guest::sh("ls /proc/self/fd | tr '\\n' ' '")
        .wrap(&with_vsock_at("7"))
        .run(&world);
    // 3 is ls's own, for the directory.
    assert_eq!(out.ok(), "0 1 2 3 ", "{}", out.describe());
    for descriptor in ["0", "1"] {
        let out = Guest::sh("touch started")
            .wrap(&with_vsock_at(descriptor))
            .run(&world);
        assert_eq!(out.code, 71, "{}", out.describe());
        assert!(out.stderr.contains("vsock"), "{}", out.describe());
    }
    assert!(!world.scratch().join("started").exists());
}

#[test]
fn there_is_no_way_into_odyn_net() {
    let world = start!(shop());
    // That a willing process can be entered like this.
    let able = probe(&world, "child").run(&world);
    for (name, outcome) in tries(&able) {
        // setns needs CAP_SYS_ADMIN, for every process.
        if name != "enter" {
            assert_eq!(outcome, "worked", "{name}: {}", able.describe());
        }
    }
    if world.direct() {
        return;
    }
    for guest in [probe(&world, "parent"), probe(&world, "parent").root()] {
        let out = guest.run(&world);
        let tries = tries(&out);
        assert_eq!(tries.len(), 14, "{}", out.describe());
        for (name, outcome) in tries {
            let denied = ["failed EPERM", "failed EACCES"].contains(&outcome);
            assert!(denied, "{name} {outcome}: {}", out.describe());
        }
    }
}

/// The kernel's files that can be written, without those of processes.
const WRITABLE: &str = r#"
import os
found = []
for top in ("/proc", "/sys"):
    for path, names, files in os.walk(top):
        if path == "/proc": names[:] = [n for n in names if not n.isdigit() and n not in ("self", "thread-self")]
        # Every process may ask for a notice of pressure.
        if path == "/proc/pressure": continue
        found += [p for p in (os.path.join(path, f) for f in files) if not os.path.islink(p) and os.access(p, os.W_OK)]
print(len(found), *found[:20])
print("core_pattern" if "/proc/sys/kernel/core_pattern" in found else "")
"#;

#[test]
fn a_root_app_cannot_change_the_kernels_settings() {
    let world = start!(shop());
    let out = Guest::python(WRITABLE, &[]).root().run(&world);
    let first = out.ok().lines().next().unwrap_or_default();
    if world.direct() {
        assert!(
            out.stdout.contains("\ncore_pattern\n"),
            "{}",
            out.describe()
        );
        return;
    }
    assert_eq!(first, "0", "{}", out.describe());
}

#[test]
fn a_root_app_cannot_take_the_shield_off() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let out = probe(&world, "kernel").root().run(&world);
    let tries = tries(&out);
    assert_eq!(tries.len(), 12, "{}", out.describe());
    for (name, outcome) in &tries {
        assert!(outcome.starts_with("failed "), "{name}: {}", out.describe());
    }
    assert_eq!(tries["in_place"], "failed EROFS", "{}", out.describe());
    assert_eq!(tries["request_key"], "failed ENOSYS", "{}", out.describe());
    for (name, outcome) in &tries {
        let wanted = match *name {
            "own_clone3" => "failed ENOSYS",
            name if name.starts_with("own_") => "failed EPERM",
            _ => continue,
        };
        assert_eq!(*outcome, wanted, "{name}: {}", out.describe());
    }
}

#[test]
fn an_app_cannot_type_into_a_terminal() {
    let world = start!(shop());
    let source = r#"
import errno, fcntl, os, pty
for request in (0x5412, 0x541C, 0x100005412):
    child, terminal = pty.fork()
    if child == 0:
        try:
            fcntl.ioctl(0, request & 0xffffffff, b"x")
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    let out = world.python(source, &[]);
    if !world.direct() {
        assert_eq!(out.ok(), "1\n1\n1\n", "{}", out.describe());
    }
}

#[test]
fn the_shield_is_the_apps_only() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let mut running =
        Guest::sh("grep -c ' /proc/sys ' /proc/self/mountinfo; echo ready; read line")
            .prelude("mount --make-rshared /; mkfifo input; exec <>input")
            .root()
            .spawn(&world);
    running
        .process
        .wait_for("1\nready", Duration::from_secs(30));
    let odyn = running.process.pid().expect("it runs");
    let mounts = std::fs::read_to_string(format!("/proc/{odyn}/mountinfo")).expect("it runs");
    assert!(
        mounts.contains(" /proc ") && mounts.contains("shared:"),
        "{mounts}"
    );
    assert!(!mounts.contains(" /proc/sys "), "{mounts}");
}
