//! odyn-net as the first process, in a root file system with hardly anything in it.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use odyn_tests::{Guest, Output, process, serve};

use crate::{shop, start};

const SOON: Duration = Duration::from_secs(30);

/// A shell, a few tools, odyn-net with its libraries, and the files of this world: that is all.
/// The first word is a script that may change it.
const EMPTY_ROOT: &str = r#"set -e
more=$1 odyn=$2 world=$(dirname "$PWD")
shift 2
root=$(mktemp -d -p "$world")
mount -t tmpfs -o mode=755 root "$root"
mkdir "$root/bin" "$root/old" "$root/etc"
cp /bin/busybox "$root/bin/busybox"
for tool in sh cat cut echo grep head hostname id ls mkdir nc printf setsid sleep sort test touch umount uniq wc; do
    ln -s busybox "$root/bin/$tool"
done
cp "$odyn" "$root/bin/odyn-net"
for lib in $(ldd "$odyn" | grep -o '/[^ ]*'); do mkdir -p "$root$(dirname "$lib")"; cp -L "$lib" "$root$lib"; done
mkdir "$root/world"
mount --bind "$world" "$root/world"
(cd "$root"; eval "$more")
cd "$root"
if [ -n "$ODYN_CHROOT" ]; then
    mkdir tree
    mv bin etc lib* tree
    mkdir tree/world
    mount --bind world tree/world
    exec chroot tree /bin/odyn-net "$@"
fi
pivot_root . old
umount -l /old
cd /
exec /bin/odyn-net "$@""#;

/// A script as the app of a first process.
fn first(script: &str, more: &str) -> Guest {
    Guest::new(&["/bin/sh", "-c", script])
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .flag("--user=65534")
        // What the tests read is the output of the app itself.
        .flag("--stdio=inherit")
        .world_at("/world")
        .wrap(&[
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            EMPTY_ROOT,
            "sh",
            more,
        ])
}

fn has_line(out: &Output, line: &str) -> bool {
    out.stdout.lines().any(|found| found == line)
}

#[test]
fn an_almost_empty_root_gets_what_is_missing() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    serve::banner(world.internet().listen("203.0.113.11:7000"), "hello");
    let script = r#"
cut -d' ' -f2,3 /proc/mounts
cut -d' ' -f2,4 /proc/mounts | grep -E '^/(proc|sys) ' | grep -c nosuid,nodev,noexec
cat /etc/resolv.conf /etc/hosts
hostname
echo x >/dev/null; echo $(head -c 4 /dev/urandom | wc -c) random bytes
test -e /dev/fd/0 && echo fd
test -c /dev/ptmx && echo ptmx
touch /dev/shm/x /tmp/x && echo writable
nc v4.shop.example 7000 </dev/null
"#;
    let out = first(script, "printf '(none)' >/proc/sys/kernel/hostname").run(&world);
    out.ok();
    for line in [
        "/proc proc",
        "/sys sysfs",
        "/dev devtmpfs",
        "/dev/pts devpts",
        "/dev/shm tmpfs",
        "/run tmpfs",
        "/tmp tmpfs",
        "2",
        "nameserver 198.18.0.1",
        "127.0.0.1 localhost",
        "tests",
        "4 random bytes",
        "fd",
        "ptmx",
        "writable",
        "hello",
    ] {
        assert!(has_line(&out, line), "no {line:?}: {}", out.describe());
    }
}

#[test]
fn what_an_image_brings_stays() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let more = "mkdir run tmp run/app; chmod 1777 tmp; touch tmp/mine\n\
        echo 'nameserver 192.0.2.9' >etc/resolv.conf; : >etc/hosts; echo keep >/proc/sys/kernel/hostname";
    let script = "ls -d /run/app /tmp/mine; cat /etc/resolv.conf; wc -c </etc/hosts; hostname";
    let out = first(script, more).run(&world);
    let wanted = "/run/app\n/tmp/mine\nnameserver 192.0.2.9\n0\nkeep\n";
    assert_eq!(out.ok(), wanted, "{}", out.describe());
}

#[test]
fn a_read_only_root_is_no_obstacle() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let more = "mkdir proc sys dev tmp run; mount -o remount,ro .";
    let script = "touch /tmp/x && echo tmp; touch /etc/x 2>/dev/null || echo ro; test -e /etc/hosts || echo none";
    let out = first(script, more).run(&world);
    assert_eq!(out.ok(), "tmp\nro\nnone\n", "{}", out.describe());
    let out = first("echo started", "mount -o remount,ro .").run(&world);
    assert_eq!(out.code, 71, "{}", out.describe());
    assert!(out.stderr.contains("/proc"), "{}", out.describe());
    assert_eq!(out.stdout, "");
}

#[test]
fn nothing_is_mounted_over_what_is_mounted() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let list = "cut -d' ' -f5 /proc/self/mountinfo | sort";
    let out = Guest::sh(&format!(
        "{list} | uniq -d >after; cat before after | sort | uniq -u"
    ))
    .prelude(&format!(
        "{list} | uniq -d >{}",
        world.scratch().join("before").display()
    ))
    .flag("--init=yes")
    .run(&world);
    assert_eq!(out.ok(), "", "{}", out.describe());
}

#[test]
fn resolv_conf_is_written_only_when_it_is_empty() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    for (name, before, init, after) in [
        ("empty", "", "auto", "nameserver 198.18.0.1\n"),
        ("blank", "\n", "auto", "nameserver 198.18.0.1\n"),
        ("chosen", "search a.example\n", "auto", "search a.example\n"),
        ("untouched", "", "no", ""),
    ] {
        let file = world.file(name, before);
        let out = Guest::new(&["cat", "/etc/resolv.conf"])
            .resolv(file)
            .flag("--init")
            .flag(init)
            .run(&world);
        assert_eq!(out.ok(), after, "{name}: {}", out.describe());
    }
}

#[test]
fn a_first_process_reaps_signals_and_takes_everything_with_it() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let ended = serve::collect(world.internet().listen("203.0.113.20:7000"));
    // A daemon that keeps a connection and ignores all that can be ignored; 1 000 orphans.
    let script = r#"
trap 'echo got TERM; exit 6' TERM
(trap '' TERM HUP; (echo up; setsid sleep 1000) | setsid nc 203.0.113.20 7000 &)
i=0; while [ $i -lt 1000 ]; do (: &); i=$((i+1)); done
while grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | grep -q .; do sleep 0.05; done
echo "parent $PPID"; echo ready; while :; do sleep 0.05; done"#;
    let mut running = first(script, "").flag("--drain-timeout=10m").spawn(&world);
    running.process.wait_for("ready", SOON);
    let unshare = running.process.pid().expect("it runs");
    let odyn = process::children(unshare).pop().expect("it runs");
    kill(odyn, Signal::SIGTERM).expect("it runs");
    let out = running.finish();
    assert_eq!(out.code, 6, "{}", out.describe());
    assert_eq!(
        out.stdout,
        "parent 1\nready\ngot TERM\n",
        "{}",
        out.describe()
    );
    assert_eq!(
        ended.recv_timeout(SOON).expect("the connection ends"),
        b"up\n"
    );
}

/// While it waits for the host. The kernel takes no signal to a first process that does not handle it.
#[test]
fn a_signal_before_the_app_starts_ends_it_all() {
    let mut world = start!(shop());
    if world.direct() {
        return;
    }
    world.outer().kill();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let running = first("echo started", "").spawn(&world);
        process::until(SOON, "the capture", || {
            world.guest_log().matches("network captured").count()
                > usize::from(signal == Signal::SIGINT)
        });
        let unshare = running.process.pid().expect("it runs");
        let odyn = process::children(unshare).pop().expect("it runs");
        kill(odyn, signal).expect("it runs");
        let out = running.finish();
        assert_eq!(out.code, 128 + signal as i32, "{}", out.describe());
        assert_eq!(out.stdout, "", "{}", out.describe());
    }
}

#[test]
fn the_end_of_the_machine_is_as_asked_for() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    // In a PID namespace the kernel kills its first process by SIGINT for "power off" and by
    // SIGHUP for "restart".
    for (on_exit, code) in [("auto", 3), ("exit", 3), ("poweroff", 130), ("reboot", 129)] {
        let out = first("echo ran; exit 3", "")
            .flag("--on-exit")
            .flag(on_exit)
            .run(&world);
        assert_eq!(
            (out.code, out.stdout.as_str()),
            (code, "ran\n"),
            "{on_exit}: {}",
            out.describe()
        );
    }
}

/// A root app looks at the file systems that odyn-net has mounted.
#[test]
fn a_first_process_shields_its_own_mounts() {
    let world = start!(shop());
    if world.direct() {
        return;
    }
    let script = "id -u; for f in /proc/sys/kernel/core_pattern /sys/kernel/uevent_helper /sys/kernel/rcu_expedited; do \
        (: >>$f) 2>/dev/null && echo $f; done; true";
    // In a chroot "/" is no mount point.
    for chroot in ["", "1"] {
        let out = first(script, "")
            .flag("--user=0")
            .env("ODYN_CHROOT", chroot)
            .run(&world);
        assert_eq!(out.ok(), "0\n", "{}", out.describe());
    }
}
