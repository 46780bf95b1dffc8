//! `enclaver doctor` on a kernel that lacks things: the same one with more and more of its modules.

use std::path::Path;

use odyn_tests::vm::{Archive, boot};
use serde_json::Value;

use crate::{Parts, results, which};

/// In the order in which the script stops to ask: nfnetlink comes with the first of them.
const MODULES: [&str; 11] = [
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_fib_inet",
    "nft_reject_inet",
    "nft_tproxy",
    "nft_log",
    "nfnetlink_log",
    "nf_log_syslog",
    "tun",
    "vsock_loopback",
];

fn initramfs(parts: &Parts) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file("init", include_bytes!("doctor.sh"), 0o755);
    for directory in ["proc", "sys", "dev"] {
        archive.directory(directory, 0o755);
    }
    archive.device("dev/console", 5, 1);
    parts.kernel.pack(&MODULES, &mut archive);
    archive.program("", &which("busybox"), "bin/busybox");
    archive.program("", &parts.dist.join("enclaver"), "bin/enclaver");
    archive.finish()
}

/// The checks that do not pass, of those that begin so.
fn lacking(report: &Value, prefixes: &[&str]) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks");
    checks
        .iter()
        .filter(|check| check["verdict"] != "present")
        .filter_map(|check| check["id"].as_str())
        .filter(|id| prefixes.iter().any(|prefix| id.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn doctor_names_what_the_kernel_lacks() {
    let Some(parts) = Parts::find() else { return };
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let console = boot(&parts.kernel, initramfs(&parts), Path::new(scratch.path()));
    let results = results(&console);
    let of = |key: &str| results.get(key).copied().unwrap_or("(missing)");
    let report = |key: &str| -> Value {
        serde_json::from_str(of(key)).unwrap_or_else(|error| panic!("{error}\n{console}"))
    };
    let rules = ["nf-", "nft-"];

    // As a stock enclave kernel, and with the half that other subsystems bring.
    for stage in ["bare", "nfnetlink"] {
        assert_eq!(of(&format!("{stage}-code")), "1", "{console}");
        let bare = report(stage);
        let all = [
            "nf-tables",
            "nft-nat",
            "nft-route",
            "nft-fib",
            "nft-reject",
            "nft-tproxy",
            "nft-log",
            "nft-capture",
        ];
        assert_eq!(lacking(&bare, &rules), all, "{console}");
        assert_ne!(bare["capture"], "nftables", "{console}");
        let machine = ["routing-rules", "loopback", "proc", "seccomp", "net-"];
        assert_eq!(lacking(&bare, &machine), [""; 0], "{console}");
        // The shortest way to a capture.
        let advice = bare["advice"].to_string();
        assert!(advice.contains("CONFIG_TUN"), "{console}");
        assert!(!advice.contains("CONFIG_NF_TABLES"), "{console}");
    }
    assert_eq!(
        lacking(&report("bare"), &["tun", "vsock"]).len(),
        4,
        "{console}"
    );

    // Everything but tproxy and log.
    assert_eq!(of("partial-code"), "1", "{console}");
    let partial = report("partial");
    let expected = ["nft-tproxy", "nft-log", "nft-capture"];
    assert_eq!(lacking(&partial, &rules), expected, "{console}");
    assert!(partial["capture"].is_null(), "{console}");

    assert_eq!(of("full-code"), "0", "{console}");
    let full = report("full");
    assert_eq!(full["capture"], "nftables", "{console}");
    let all = ["nf-", "nft-", "tun", "vsock-loopback"];
    assert_eq!(lacking(&full, &all), [""; 0], "{console}");

    // The loopback is a link of its own, and no way to a host.
    assert_eq!(of("loopback-code"), "0", "{console}");
    assert_eq!(of("host-code"), "1", "{console}");
    let blocking = serde_json::json!(["vsock-cid"]);
    assert_eq!(report("host")["blocking"], blocking, "{console}");
}
