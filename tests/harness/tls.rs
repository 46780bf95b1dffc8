//! A certificate authority for one test run, made by openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process::run;

/// Names and addresses that the servers' certificate is good for.
const SUBJECTS: &str = "DNS:shop.example,DNS:*.shop.example,DNS:*.eu.shop.example,\
     DNS:example.net,DNS:*.example.net,\
     DNS:kms.eu-west-1.amazonaws.com,IP:203.0.113.10,IP:203.0.113.11,IP:2001:db8::10";

/// Made once per test process, so that a world starts in no time.
static AUTHORITY: OnceLock<Authority> = OnceLock::new();

struct Authority {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Puts `ca.pem`, `cert.pem` and `key.pem` into a world's directory.
///
/// # Panics
/// When openssl fails.
pub fn install(dir: &Path) {
    let authority = AUTHORITY.get_or_init(make);
    for (name, content) in [
        ("ca.pem", &authority.ca),
        ("cert.pem", &authority.certificate),
        ("key.pem", &authority.key),
    ] {
        fs::write(dir.join(name), content).expect("own directory");
    }
}

fn make() -> Authority {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let openssl = |words: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(dir.path()).args(words);
        run(command);
    };
    fs::write(
        path("leaf.cnf"),
        format!("basicConstraints=CA:FALSE\nsubjectAltName={SUBJECTS}\n"),
    )
    .expect("own directory");
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    openssl(
        &[
            &["req", "-x509", "-days", "30", "-subj", "/CN=test CA"][..],
            &key,
            &["-keyout", "ca.key", "-out", "ca.pem"],
            &["-addext", "keyUsage=critical,keyCertSign"],
        ]
        .concat(),
    );
    openssl(
        &[
            &["req", "-new", "-subj", "/CN=shop.example"][..],
            &key,
            &["-keyout", "key.pem", "-out", "leaf.csr"],
        ]
        .concat(),
    );
    openssl(&[
        "x509",
        "-req",
        "-days",
        "30",
        "-in",
        "leaf.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "1",
        "-extfile",
        "leaf.cnf",
        "-out",
        "cert.pem",
    ]);
    let read = |name: &str| fs::read(path(name)).expect("openssl wrote it");
    Authority {
        ca: read("ca.pem"),
        certificate: read("cert.pem"),
        key: read("key.pem"),
    }
}
