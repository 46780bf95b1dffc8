//! The executable as users run it: arguments in, text and exit code out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn add(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs in the directory of the files, so that outputs have no temporary path in them.
    fn run(&self, args: &[&str]) -> Output {
        policyctl(self.0.path(), args).output().unwrap()
    }
}

fn policyctl(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_policyctl"));
    command
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

const GOOD: &str = "version: v1
name: payments
target: x:latest
egress:
  allow:
    - api.stripe.com
    - { to: db.internal, ports: [5432], protocol: tcp }
    - 10.1.0.0/16
    - host
  deny:
    - 10.1.9.0/24
";

const WARNS: &str = "version: v1
egress:
  allow:
    - \"**\"
";

const WRONG: &str = "version: v1
egress:
  allow:
    - 10.1.0.0/33
    - api.stripe.com
  dney: []
";

#[test]
fn exit_codes_of_check() {
    let files = Files::new();
    files.add("good.yaml", GOOD);
    files.add("warns.yaml", WARNS);
    files.add("wrong.yaml", WRONG);
    std::fs::create_dir(files.0.path().join("directory")).unwrap();
    for (args, wanted) in [
        (&["check", "good.yaml"][..], 0),
        (&["check", "--deny-warnings", "good.yaml"], 0),
        (&["check", "-v", "--deny-warnings", "good.yaml"], 0),
        (&["check", "warns.yaml"], 0),
        (&["check", "--deny-warnings", "warns.yaml"], 1),
        (&["check", "wrong.yaml"], 1),
        (&["check", "good.yaml", "wrong.yaml", "warns.yaml"], 1),
        (&["check", "missing.yaml"], 2),
        (&["check", "directory"], 2),
        (&["check", "wrong.yaml", "missing.yaml"], 2),
        (&["check"], 2),
        (&["check", "--format", "xml", "good.yaml"], 2),
        (&["chek", "good.yaml"], 2),
        (&[], 2),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        let output = files.run(args);
        assert_eq!(
            code(&output),
            wanted,
            "{args:?}\n{}{}",
            out(&output),
            err(&output)
        );
    }
}

#[test]
fn findings_about_endpoints_of_kms() {
    let files = Files::new();
    let text = "version: v1
kms_proxy:
  listen_port: 9999
  endpoints:
    eu-west-1a: kms.example
    eu-west-1: http://kms.example
egress:
  allow: [a.example]
";
    files.add("kms.yaml", text);
    let output = files.run(&["check", "kms.yaml"]);
    assert_eq!(code(&output), 1);
    assert_eq!(
        out(&output),
        "error[unknown-key]: `eu-west-1a` is not a key of `endpoints`: it does not have the form of an AWS region
 --> kms.yaml:5:5
  |
5 |     eu-west-1a: kms.example
  |     ^^^^^^^^^^
  = help: did you mean `eu-west-1`?

error[bad-value]: an endpoint is reached by HTTPS: plain HTTP would show everything to the host
 --> kms.yaml:6:16
  |
6 |     eu-west-1: http://kms.example
  |                ^^^^^^^^^^^^^^^^^^
  = help: write `https://kms.example`, or leave the scheme out

kms.yaml: 2 errors
"
    );
}

#[test]
fn findings_for_people() {
    let files = Files::new();
    files.add("wrong.yaml", WRONG);
    let output = files.run(&["check", "wrong.yaml"]);
    assert_eq!(
        out(&output),
        "error[bad-address]: `10.1.0.0/33` is not a network: `/33` is not a prefix length
 --> wrong.yaml:4:7
  |
4 |     - 10.1.0.0/33
  |       ^^^^^^^^^^^
  = help: it must be a number from 0 to 32

error[unknown-key]: `dney` is not a key of `egress`
 --> wrong.yaml:6:3
  |
6 |   dney: []
  |   ^^^^
  = help: did you mean `deny`?

wrong.yaml: 2 errors
"
    );
    assert_eq!(err(&output), "");
}

#[test]
fn a_good_file_says_what_it_amounts_to() {
    let files = Files::new();
    files.add("good.yaml", GOOD);
    files.add("nothing.yaml", "version: v1\n");
    files.add("report.yaml", "version: v1\negress: { mode: report }\n");
    let output = files.run(&["check", "good.yaml", "nothing.yaml", "report.yaml"]);
    assert_eq!(
        out(&output),
        "good.yaml: ok, 4 allow rules and 1 deny rule
nothing.yaml: ok, allows no outbound flow
report.yaml: ok, mode report with 0 rules
"
    );
}

#[test]
fn foreign_keys_are_listed_on_request() {
    let files = Files::new();
    files.add("good.yaml", GOOD);
    let plain = files.run(&["check", "good.yaml"]);
    assert!(!out(&plain).contains("target"));
    let verbose = files.run(&["check", "-v", "good.yaml"]);
    assert!(
        out(&verbose)
            .contains("note[foreign-key]: `target` belongs to another tool and is ignored"),
        "{}",
        out(&verbose)
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let files = Files::new();
    files.add("good.yaml", GOOD);
    std::fs::create_dir(files.0.path().join("directory")).unwrap();
    let output = files.run(&["check", "missing.yaml", "good.yaml", "directory"]);
    assert!(
        err(&output).contains("missing.yaml: No such file"),
        "{}",
        err(&output)
    );
    assert!(
        err(&output).contains("directory: it is a directory"),
        "{}",
        err(&output)
    );
    // The one that can be read is checked all the same.
    assert!(out(&output).contains("good.yaml: ok"), "{}", out(&output));
}

#[test]
fn standard_input() {
    let files = Files::new();
    for (text, wanted) in [(GOOD, 0), (WRONG, 1)] {
        let mut child = policyctl(files.0.path(), &["check", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), wanted);
        assert!(out(&output).contains("<stdin>: "), "{}", out(&output));
    }
}

#[test]
fn bytes_that_are_no_text() {
    let files = Files::new();
    std::fs::write(
        files.0.path().join("bytes.yaml"),
        b"version: v1\nname: \xff\n",
    )
    .unwrap();
    let output = files.run(&["check", "bytes.yaml"]);
    assert_eq!(code(&output), 1);
    assert!(out(&output).contains("error[not-utf8]"), "{}", out(&output));
    assert!(out(&output).contains("bytes.yaml:2:7"), "{}", out(&output));
}

#[test]
fn json_is_an_array_of_findings() {
    let files = Files::new();
    files.add("good.yaml", GOOD);
    files.add("wrong.yaml", WRONG);
    files.add("twice.yaml", "version: v1\nname: a\nname: b\n");
    let parse = |args: &[&str]| -> Value { serde_json::from_str(out(&files.run(args))).unwrap() };
    assert_eq!(
        parse(&["check", "--format", "json", "good.yaml"]),
        serde_json::json!([])
    );
    assert_eq!(
        parse(&[
            "check",
            "--format",
            "json",
            "good.yaml",
            "wrong.yaml",
            "twice.yaml"
        ]),
        serde_json::json!([
            {
                "file": "wrong.yaml", "severity": "error", "code": "bad-address",
                "message": "`10.1.0.0/33` is not a network: `/33` is not a prefix length",
                "help": "it must be a number from 0 to 32",
                "line": 4, "column": 7, "length": 11, "related": []
            },
            {
                "file": "wrong.yaml", "severity": "error", "code": "unknown-key",
                "message": "`dney` is not a key of `egress`", "help": "did you mean `deny`?",
                "line": 6, "column": 3, "length": 4, "related": []
            },
            {
                "file": "twice.yaml", "severity": "error", "code": "duplicate-key",
                "message": "the key `name` stands twice in the policy",
                "help": "remove one of the two",
                "line": 3, "column": 1, "length": 4,
                "related": [{ "message": "first here", "line": 2, "column": 1, "length": 4 }]
            }
        ])
    );
}

#[test]
fn sarif_has_what_the_format_requires() {
    let files = Files::new();
    files.add("wrong file.yaml", WRONG);
    let output = files.run(&[
        "check",
        "--format",
        "sarif",
        "wrong file.yaml",
        "missing.yaml",
    ]);
    assert_eq!(code(&output), 2);
    let log: Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(run["tool"]["driver"]["name"], "policyctl");
    assert_eq!(run["invocations"][0]["executionSuccessful"], false);
    let notification = &run["invocations"][0]["toolExecutionNotifications"][0];
    assert!(
        notification["message"]["text"]
            .as_str()
            .unwrap()
            .contains("missing.yaml")
    );
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert_eq!(result["level"], "error");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "wrong%20file.yaml");
        let region = &place["region"];
        assert!(region["endColumn"].as_u64() > region["startColumn"].as_u64());
    }
    assert_eq!(
        results[0]["locations"][0]["physicalLocation"]["region"]["startLine"],
        4
    );
}

#[test]
fn a_closed_pipe_is_not_a_crash() {
    let files = Files::new();
    let rules: String = (0..20_000).map(|_| "    - 10.0.0.0/33\n").collect();
    files.add(
        "long.yaml",
        &format!("version: v1\negress:\n  allow:\n{rules}"),
    );
    let mut child = policyctl(files.0.path(), &["check", "long.yaml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 2, "{}", err(&output));
    assert!(!err(&output).contains("panicked"), "{}", err(&output));
}

#[test]
fn exit_codes_of_explain() {
    let files = Files::new();
    files.add("good.yaml", GOOD);
    files.add("wrong.yaml", WRONG);
    for (args, wanted) in [
        (&["--to", "api.stripe.com:443/tcp"][..], 0),
        (&["--to", "api.stripe.com:443"], 0),
        (
            &["--to", "api.stripe.com:443/tcp", "--resolved", "1.2.3.4"],
            0,
        ),
        (
            &["--to", "api.stripe.com:443/tcp", "--resolved", "127.0.0.1"],
            1,
        ),
        (
            &[
                "--to",
                "api.stripe.com:443/tcp",
                "--resolved",
                "127.0.0.1",
                "--resolved",
                "1.2.3.4",
            ],
            0,
        ),
        (&["--to", "db.internal:5432"], 0),
        (&["--to", "db.internal:5432/udp"], 1),
        (&["--to", "db.internal:443"], 1),
        (&["--to", "evil.example:443"], 1),
        (&["--to", "localhost:443"], 1),
        (&["--to", "10.1.2.3:443"], 0),
        (&["--to", "10.1.9.3:443"], 1),
        (&["--to", "[2001:db8::1]:53/udp"], 1),
        (&["--to", "[::ffff:10.1.2.3]:443"], 0),
        (&["--to", "169.254.169.254:80"], 1),
        (&["--to", "host:8080"], 0),
        (&["--to", "api.stripe.com:0"], 1),
        (&["--to", "api.stripe.com"], 2),
        (&["--to", "api.stripe.com:443/sctp"], 2),
        (&["--to", "10.1.2.3:443", "--resolved", "1.2.3.4"], 2),
        (&["--to", "api.stripe.com:443", "--resolved", "nonsense"], 2),
        (&[], 2),
    ] {
        let output = files.run(&[&["explain", "good.yaml"], args].concat());
        assert_eq!(
            code(&output),
            wanted,
            "{args:?}\n{}{}",
            out(&output),
            err(&output)
        );
    }
    for file in ["wrong.yaml", "missing.yaml"] {
        let output = files.run(&["explain", file, "--to", "api.stripe.com:443"]);
        assert_eq!(code(&output), 2);
        assert_eq!(out(&output), "");
        assert!(err(&output).contains(file), "{}", err(&output));
    }
}

#[test]
fn an_allowed_flow_is_explained() {
    let files = Files::new();
    files.add("good.yaml", GOOD);
    let args = ["explain", "good.yaml", "--to", "db.internal:5432"];
    assert_eq!(
        out(&files.run(&args)),
        "allow db.internal:5432/tcp
  rule: good.yaml:7:13: allow db.internal

considered:
  deny rules for the name db.internal: none match
  allow rules for the name db.internal: allowed
    good.yaml:7:13: allow db.internal (5432/tcp): decides
  addresses: not checked; pass `--resolved IP` to check them. Every resolved address must be allowed too
"
    );
    let args = [
        &args[..],
        &["--resolved", "10.1.9.1", "--resolved", "10.1.8.1"],
    ]
    .concat();
    assert_eq!(
        out(&files.run(&args)),
        "allow db.internal:5432/tcp
  rule: good.yaml:7:13: allow db.internal
  dials: 10.1.8.1

considered:
  deny rules for the name db.internal: none match
  allow rules for the name db.internal: allowed
    good.yaml:7:13: allow db.internal (5432/tcp): decides
  deny rules for the address 10.1.9.1: denied
    good.yaml:11:7: deny 10.1.9.0/24: decides
  deny rules for the address 10.1.8.1: none match
"
    );
}

#[test]
fn a_denied_flow_is_explained_with_what_nearly_fitted() {
    let files = Files::new();
    files.add(
        "near.yaml",
        "version: v1
egress:
  allow:
    - api.stripe.com
    - \"*.example.com\"
    - { to: db.internal, ports: [5432], protocol: tcp }
    - 0.0.0.0/0
  deny:
    - bad.example.com
",
    );
    for (to, words) in [
        (
            "api.stripe.co:443",
            &["reason: no-rule", "near.yaml:4:7", "is spelled differently"][..],
        ),
        ("v2.api.stripe.com:443", &["is for api.stripe.com only"]),
        (
            "a.b.example.com:443",
            &["near.yaml:5:7", "`*` is exactly one label"],
        ),
        ("example.com:443", &["is for names below example.com"]),
        (
            "db.internal:443",
            &[
                "reason: port",
                "nearest rule: near.yaml:6:13",
                "is for other ports",
            ],
        ),
        (
            "db.internal:5432/udp",
            &["reason: protocol", "is for the other protocol"],
        ),
        (
            "bad.example.com:443",
            &[
                "reason: deny-rule",
                "rule: near.yaml:9:7: deny bad.example.com",
            ],
        ),
        (
            "169.254.169.254:80",
            &[
                "reason: special-address",
                "link-local",
                "is wider than the special block",
            ],
        ),
        ("localhost:80", &["reason: special-name", "RFC 6761"]),
        (
            "198.18.0.1:80",
            &["reason: unknown-synthetic", "never dialled"],
        ),
    ] {
        let output = files.run(&["explain", "near.yaml", "--to", to]);
        assert_eq!(code(&output), 1, "{to}");
        for word in words {
            assert!(
                out(&output).contains(word),
                "{to}: no {word:?} in\n{}",
                out(&output)
            );
        }
    }
    let args = [
        "explain",
        "near.yaml",
        "--to",
        "a.test:443",
        "--resolved",
        "203.0.113.1",
    ];
    let output = files.run(&args);
    assert!(
        out(&output).contains("a name needs a name rule"),
        "{}",
        out(&output)
    );
}
