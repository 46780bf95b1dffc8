//! `policyctl check --root`: the files that a policy names, in an image that was unpacked.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

const POLICY: &str = "version: v1
ingress:
  - listen_port: 443
    tls:
      cert_file: /etc/tls/cert.pem
      key_file: /etc/tls/key.pem
";

fn check(directory: &Path, args: &[&str]) -> (Option<i32>, String) {
    std::fs::write(directory.join("policy.yaml"), POLICY).unwrap();
    let Output { status, stdout, .. } = Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .arg("check")
        .args(args)
        .arg("policy.yaml")
        .current_dir(directory)
        .output()
        .unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    (cert.pem(), key.serialize_pem())
}

#[test]
fn files_are_checked_below_the_root_only_and_when_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (code, out) = check(dir, &[]);
    assert_eq!(code, Some(0), "{out}");
    assert!(!out.contains("tls"), "{out}");
    let (code, out) = check(dir, &["-v"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("not checked") && out.contains("--root DIR"),
        "{out}"
    );

    let tls = dir.join("image/etc/tls");
    std::fs::create_dir_all(&tls).unwrap();
    let (code, out) = check(dir, &["--root", "image"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("policy.yaml:5:18"), "{out}");
    assert!(
        out.contains("/etc/tls/cert.pem: can't be read: No such file"),
        "{out}"
    );
    assert!(out.contains("policy.yaml:6:17"), "{out}");

    let (cert, key) = pair();
    std::fs::write(tls.join("cert.pem"), &cert).unwrap();
    std::fs::create_dir(dir.join("image/secrets")).unwrap();
    std::fs::write(dir.join("image/secrets/key"), &key).unwrap();
    // Absolute, as in the guest; and one that would lead out of the image.
    symlink("/secrets/key", tls.join("key.pem")).unwrap();
    let (code, out) = check(dir, &["--root", "image"]);
    assert_eq!(code, Some(0), "{out}");
    std::fs::remove_file(tls.join("key.pem")).unwrap();
    symlink("../../../../../../secrets/key", tls.join("key.pem")).unwrap();
    let (code, out) = check(dir, &["--root", "image"]);
    assert_eq!(
        code,
        Some(0),
        "the root of the image is its own parent: {out}"
    );

    std::fs::write(dir.join("image/secrets/key"), pair().1).unwrap();
    let (code, out) = check(dir, &["--root", "image"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("is not the key of the certificate in /etc/tls/cert.pem"),
        "{out}"
    );
    assert!(!out.contains(key.lines().nth(1).unwrap()), "{out}");

    let (code, _) = check(dir, &["--root", "nowhere"]);
    assert_eq!(code, Some(2));
}
