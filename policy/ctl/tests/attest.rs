//! `policyctl attest verify` on a real document.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const THEN: [&str; 2] = ["--at", "2022-09-15T17:44:24Z"];
/// PCR0 of the document.
const PCR0: &str = "ea4212ee889ba1b4dbfe744aadecca8b1930de60a3a1ce3b0c79f42b231700fc561c3d9b34f0565ed9eb6f460996624c";

fn real() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kms-proxy/vectors/nitro-2022.b64")
}

fn verify(document: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_policyctl"))
        .args(["attest", "verify"])
        .arg(document)
        .args(words)
        .output()
        .unwrap()
}

fn outcome(document: &Path, words: &[&str]) -> (i32, String) {
    let output = verify(document, words);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

#[test]
fn a_real_document_is_valid_at_its_time_only() {
    let (code, text) = outcome(&real(), &THEN);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("valid\n") && text.contains(PCR0), "{text}");
    let (code, text) = outcome(&real(), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("NOT VALID"), "{text}");
    assert!(text.contains("not verified"), "{text}");
}

#[test]
fn measurements_and_nonces_are_compared() {
    let directory = tempfile::tempdir().unwrap();
    let expect = directory.path().join("eif.json");
    let good =
        format!(r#"{{"Measurements":{{"HashAlgorithm":"Sha384 {{ ... }}","PCR0":"{PCR0}"}}}}"#);
    std::fs::write(&expect, good).unwrap();
    let expect = expect.to_str().unwrap();
    let zero = "00".repeat(48);
    let nonce = "47b5fba6979cbf7e567e2629";
    for (words, code) in [
        (&["--pcr0", PCR0][..], 0),
        (&["--pcr0", &zero], 1),
        (&["--pcr2", PCR0], 1),
        (&["--expect", expect], 0),
        (&["--expect", expect, "--pcr0", &zero], 1),
        (&["--nonce", nonce], 0),
        (&["--nonce", "R7X7ppecv35WfiYp"], 0),
        (&["--nonce", "00"], 1),
        (&["--root", "simulated"], 1),
        (&["--pcr0", "xyz"], 2),
        (&["--pcr0", "00"], 2),
        (&["--nonce", "?"], 2),
        (&["--expect", "/nowhere"], 2),
        (&["--root", "/nowhere"], 2),
    ] {
        let found = outcome(&real(), &[&THEN[..], words].concat());
        assert_eq!(found.0, code, "{words:?}: {}", found.1);
    }
}

#[test]
fn programs_get_json() {
    let output = verify(&real(), &[&THEN[..], &["--json"]].concat());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["valid"], true);
    assert_eq!(value["document"]["pcrs"]["PCR0"], PCR0);
    assert_eq!(value["document"]["timestamp"], "2022-09-15T17:43:28.848Z");
    let output = verify(&real(), &["--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["valid"], false);
    assert!(value["fault"].as_str().unwrap().contains("certificate"));
}

#[test]
fn what_is_no_document_is_not_valid() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("doc");
    for content in [&b""[..], b"hello", b"\xff\xff", &[0x84; 60_000]] {
        std::fs::write(&file, content).unwrap();
        let (code, text) = outcome(&file, &[]);
        assert_eq!(code, 1, "{text}");
    }
    let (code, _) = outcome(&directory.path().join("none"), &[]);
    assert_eq!(code, 2);
}
