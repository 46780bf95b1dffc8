//! `hybrid://`: the machine's vsock is a Unix socket of this one, by vhost-device-vsock, and
//! enclaver-outer listens beside it.
//!
//! The device is no package of any distribution and takes minutes to build, so this test is no part of
//! `scripts/test`: it is for hands, as root, with `ODYN_TEST_VHOST` naming the executable. docs/recipes.md has
//! what was seen.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use odyn_tests::process::{Process, until};
use odyn_tests::vm::{Archive, Machine, NFTABLES};
use odyn_tests::{World, serve};

use crate::{Parts, blob, compile, which};

const POLICY: &str = "version: v1\nname: outside\negress:\n  allow:\n    - www.shop.example\n";

fn initramfs(parts: &Parts, scratch: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file("init", include_bytes!("hybrid.sh"), 0o755);
    archive.directory("dev", 0o755);
    archive.device("dev/console", 5, 1);
    let modules = [
        &["virtio_mmio", "vmw_vsock_virtio_transport"],
        &NFTABLES[..],
    ]
    .concat();
    parts.kernel.pack(&modules, &mut archive);
    archive.program("", &which("busybox"), "bin/busybox");
    archive.program("", &compile(scratch), "bin/tool");
    archive.program("", &parts.dist.join("odyn-net"), "odyn-net");
    archive.file("policy.yaml", POLICY.as_bytes(), 0o644);
    archive.file("program.sh", include_bytes!("hybrid_program.sh"), 0o644);
    archive.file("blob", &blob(), 0o644);
    archive.finish()
}

#[test]
#[ignore = "needs vhost-device-vsock"]
fn a_guest_behind_a_hybrid_socket() {
    let device = std::env::var_os("ODYN_TEST_VHOST").expect("ODYN_TEST_VHOST");
    let parts = Parts::find().expect("the other variables of this test");
    let world = World::builder()
        .name("www.shop.example", &["203.0.113.10"])
        .outer(&[
            "--listen",
            "hybrid://DIR/vm.sock:7000",
            "--guest-logs",
            "stdout",
        ])
        .start()
        .expect("root");
    serve::banner(world.internet().listen("203.0.113.10:7000"), "hello");
    let received = serve::collect(world.internet().listen("203.0.113.10:9000"));

    let dir = world.dir();
    let control = dir.join("vhost.sock");
    let mut command = Command::new(device);
    command.arg("--vm").arg(format!(
        "guest-cid=3,uds-path={},socket={}",
        dir.join("vm.sock").display(),
        control.display()
    ));
    let _device = Process::spawn(command, "vhost", &world.logs(), false);
    until(Duration::from_secs(10), "the device", || control.exists());

    let mut machine = Machine::new(&parts.kernel, initramfs(&parts, dir), dir);
    machine.vhost_user_vsock(&control);
    let console = machine.run_to_its_end();
    let sent = blob();
    let got = received
        .recv_timeout(Duration::from_secs(10))
        .expect("the last bytes");
    assert!(
        got == sent,
        "{} of {} bytes\n{console}",
        got.len(),
        sent.len()
    );
    let logs = world.outer_stdout();
    println!("{logs}");
    for said in ["RESULT page hello", "RESULT unknown"] {
        assert!(logs.contains(said), "no {said:?}\n{logs}\n{console}");
    }
}
