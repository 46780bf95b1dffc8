//! Boots a real kernel and runs guest and host in it, with AF_VSOCK between them.
//!
//! The executables are the static ones that `scripts/dist` makes, in the folder that
//! `ODYN_TEST_DIST` names; the kernel is a distribution's, in the folder that `ODYN_TEST_KERNEL`
//! names (`scripts/vm-kernel` puts it there). Without the two variables the tests are skipped and
//! say so.

#![forbid(unsafe_code)]

mod doctor;
mod hybrid;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use odyn_tests::dist::folder;
use odyn_tests::process::run;
use odyn_tests::vm::{Archive, Kernel, Machine, NFTABLES, VSOCK, boot};

/// What the test needs from outside, or `None` with a word on standard error.
struct Parts {
    dist: PathBuf,
    kernel: Kernel,
}

impl Parts {
    fn find() -> Option<Self> {
        let (dist, kernel) = (folder("ODYN_TEST_DIST")?, folder("ODYN_TEST_KERNEL")?);
        let kernel = Kernel::open(&kernel).expect("a kernel in ODYN_TEST_KERNEL");
        Some(Self { dist, kernel })
    }

    /// odyn-net, a shell, and hardly anything else.
    fn bare(&self, modules: &[&str]) -> Vec<u8> {
        let mut archive = Archive::default();
        archive.file("init", include_bytes!("first.sh"), 0o755);
        archive.directory("dev", 0o755);
        archive.device("dev/console", 5, 1);
        self.kernel.pack(modules, &mut archive);
        archive.program("", &which("busybox"), "bin/busybox");
        archive.program("", &self.dist.join("odyn-net"), "odyn-net");
        archive.file("policy.yaml", b"version: v1\nname: first\n", 0o644);
        archive.file("program.sh", include_bytes!("first_program.sh"), 0o644);
        archive.finish()
    }

    /// The host's files, and the guest's under `guest/`: odyn-net, a policy and the app.
    fn initramfs(&self, modules: &[&str], scratch: &Path) -> Vec<u8> {
        let mut archive = Archive::default();
        archive.file("init", include_bytes!("init.sh"), 0o755);
        for directory in ["proc", "sys", "dev", "guest/proc", "guest/tmp"] {
            archive.directory(directory, 0o755);
        }
        archive.device("dev/console", 5, 1);
        archive.device("guest/dev/net/tun", 10, 200);
        self.kernel.pack(modules, &mut archive);
        let tool = compile(scratch);
        let busybox = which("busybox");
        for root in ["", "guest/"] {
            archive.program(root, &busybox, "bin/busybox");
            archive.program(root, &tool, "bin/tool");
        }
        archive.program("", &self.dist.join("enclaver-outer"), "bin/enclaver-outer");
        archive.file("etc/hosts", b"203.0.113.10 www.shop.example\n", 0o644);
        archive.file("www/page", b"hello", 0o644);

        archive.program("guest/", &self.dist.join("odyn-net"), "odyn-net");
        archive.program("guest/", &which("curl"), "bin/curl");
        archive.file("guest/program.sh", include_bytes!("program.sh"), 0o644);
        archive.file("guest/policy.yaml", include_bytes!("policy.yaml"), 0o644);
        archive.file("guest/etc/resolv.conf", b"nameserver 192.0.2.53\n", 0o644);
        archive.file("guest/blob", &blob(), 0o644);
        archive.finish()
    }
}

fn which(name: &str) -> PathBuf {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$0\"", name]);
    PathBuf::from(run(command).trim())
}

fn compile(scratch: &Path) -> PathBuf {
    let source = scratch.join("tool.c");
    fs::write(&source, include_str!("tool.c")).expect("own directory");
    let executable = scratch.join("tool");
    let mut command = Command::new("musl-gcc");
    command
        .args(["-O1", "-static", "-o"])
        .arg(&executable)
        .arg(&source);
    run(command);
    executable
}

/// 8 MiB that do not repeat soon.
fn blob() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.take(1 << 20).flat_map(u64::to_le_bytes).collect()
}

/// The lines `RESULT key value` of the console; those of the app have its name before them.
fn results(console: &str) -> BTreeMap<&str, &str> {
    console
        .lines()
        .filter_map(|line| Some(line.split_once("RESULT ")?.1))
        .filter_map(|line| line.split_once(' ').or(Some((line, ""))))
        .collect()
}

/// Boots with these modules, and checks what host and guest say. A denied connection ends `curl`
/// with one of these codes.
fn guest_behind_vsock(modules: &[&str], denied: &[&str]) {
    let Some(parts) = Parts::find() else { return };
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let initramfs = parts.initramfs(modules, scratch.path());
    let console = boot(&parts.kernel, initramfs, scratch.path());
    let results = results(&console);
    let of = |key: &str| results.get(key).copied().unwrap_or("(missing)");
    // The app's own lines come by its log feed.
    assert_eq!(of("page"), "hello", "{console}");
    assert!(denied.contains(&of("denied")), "{console}");
    assert_eq!(of("unknown"), "6", "{console}");
    assert_eq!(of("udp"), "ping", "{console}");
    assert_eq!(of("vsock"), "refused", "{console}");
    assert_eq!(of("last"), "line", "{console}");
    assert_eq!(of("exit"), "7", "{console}");
    assert!(of("status").contains("exited"), "{console}");
    assert_eq!(of("received"), of("sent"), "{console}");
    assert_eq!(of("outer"), "0", "{console}");
    assert!(results.contains_key("done"), "{console}");
    let seconds = |key| of(key).parse::<f64>().expect(key);
    let (init, odyn, app) = (
        seconds("up-init"),
        seconds("up-odyn"),
        seconds("up-program"),
    );
    println!(
        "seconds from the kernel's start: first process {init}, odyn-net {odyn}, link up and app started {app}\n\
         resident: {} KiB",
        of("resident")
    );
    assert!(init <= odyn && odyn <= app, "{console}");
}

#[test]
fn a_guest_behind_real_vsock() {
    // Connected and reset at once by nftables: before the request, while or after it is sent.
    guest_behind_vsock(&[&VSOCK[..], &NFTABLES].concat(), &["7", "55", "56"]);
}

/// A kernel without nf_tables, like those that AWS ships for enclaves.
#[test]
fn a_kernel_without_nf_tables() {
    // Refused in the handshake.
    guest_behind_vsock(&[&VSOCK[..], &["tun"]].concat(), &["7"]);
}

#[test]
fn odyn_net_is_the_first_process_of_a_machine() {
    let Some(parts) = Parts::find() else { return };
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let modules = [&VSOCK[..], &NFTABLES].concat();
    let initramfs = parts.bare(&modules);
    let last = "reboot: Power down";
    let console = Machine::new(&parts.kernel, initramfs, scratch.path()).run_until(last);
    let results = results(&console);
    let of = |key: &str| results.get(key).copied().unwrap_or("(missing)");
    assert_eq!(of("uid"), "0", "{console}");
    assert_eq!(of("parent"), "1 odyn-net", "{console}");
    let mounts = "/dev /dev/pts /dev/shm /proc /run /sys /tmp";
    assert_eq!(of("mounts").trim_end(), mounts, "{console}");
    assert_eq!(of("resolver"), "nameserver 198.18.0.1", "{console}");
    assert_eq!(of("name"), "first", "{console}");
    assert_eq!(of("helpers"), "<> <core>", "{console}");
    assert_eq!(of("pattern"), "refused", "{console}");
    assert_eq!(of("helper"), "did-not-run", "{console}");
    assert_eq!(of("program"), "done", "{console}");
    assert!(!console.contains("Kernel panic"), "{console}");
}
