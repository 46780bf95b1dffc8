//! Large transfers, with checksums.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use odyn_tests::{Guest, process, servers};

use crate::{shop, start};

const GIB: u64 = 1 << 30;

/// A gibibyte that does not compress; the same every time.
fn big_file(path: &Path) -> String {
    let script = "openssl enc -aes-128-ctr -pass pass:big -nosalt -pbkdf2 </dev/zero 2>/dev/null \
                  | head -c 1073741824 | tee \"$1\" | sha256sum";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(path);
    checksum(&process::run(command)).to_owned()
}

fn checksum(output: &str) -> &str {
    output.split_whitespace().next().expect("a checksum")
}

#[test]
fn a_gibibyte_comes_down_unharmed() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let sum = big_file(&servers::www(&world).join("big"));
    let out = Guest::sh("curl -sS http://v4.shop.example/big | sha256sum")
        .limit(Duration::from_secs(240))
        .run(&world);
    assert_eq!(checksum(out.ok()), sum);
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 80) {
        assert!(flow.bytes_received > GIB, "{flow:?}");
    }
}

#[test]
fn a_gibibyte_goes_up_unharmed() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let file = world.dir().join("big");
    let sum = big_file(&file);
    let out = Guest::new(&[
        "curl",
        "-sS",
        "-T",
        &file.display().to_string(),
        "http://v4.shop.example/upload/big",
    ])
    .limit(Duration::from_secs(240))
    .run(&world);
    out.ok();
    let mut command = Command::new("sha256sum");
    command.arg(servers::www(&world).join("upload/big"));
    assert_eq!(checksum(&process::run(command)), sum);
    if let Some(flow) = out.flow("tcp", "v4.shop.example", 80) {
        assert!(flow.bytes_sent > GIB, "{flow:?}");
    }
}

#[test]
fn git_clones_over_https() {
    let world = start!(shop());
    let _nginx = servers::nginx(&world);
    let head = servers::git_repository(&world, "repo.git");
    let out = Guest::sh(
        "git clone -q https://api.shop.example/repo.git clone && git -C clone rev-parse HEAD \
         && git -C clone fsck --full",
    )
    .run(&world);
    assert_eq!(out.ok().trim(), head);
    if !world.direct() {
        assert!(!out.flows("tcp", "api.shop.example", 443).is_empty());
    }
}
