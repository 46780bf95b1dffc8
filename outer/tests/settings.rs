//! The settings of the executable: who wins, and what is wrong.
#![allow(missing_docs)]

use std::process::{Command, Output};

fn outer(file: &str, environment: &[(&str, &str)], words: &[&str]) -> (Output, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("outer.yaml");
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_enclaver-outer"));
    command.env_clear().env("OUTER_CONFIG", &path);
    command.envs(environment.iter().copied());
    let output = command.arg("run").args(words).output().unwrap();
    (output, path.display().to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let file = "listen: vsock://any:7000\nlog_level: warn\n";
    let environment = &[("OUTER_LOG_LEVEL", "error")][..];
    let flag = &["--log-level", "trace"][..];
    for (file, environment, flag, wanted) in [
        (
            file,
            environment,
            flag,
            "log_level: trace  # flag --log-level",
        ),
        (
            file,
            environment,
            &[][..],
            "log_level: error  # environment OUTER_LOG_LEVEL",
        ),
        (file, &[][..], &[][..], "log_level: warn  # FILE:2"),
        ("", &[][..], &[][..], "log_level: info  # default"),
    ] {
        let words: Vec<&str> = flag.iter().copied().chain(["--print-config"]).collect();
        let (output, path) = outer(file, environment, &words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let printed = text(&output.stdout).replace(&path, "FILE");
        let squeezed = |line: &str| {
            line.split("  ")
                .filter(|s| !s.is_empty())
                .map(str::trim)
                .collect::<Vec<_>>()
                .join("  ")
        };
        assert!(
            printed.lines().any(|line| squeezed(line) == wanted),
            "{wanted}:\n{printed}"
        );
    }
}

#[test]
fn a_wrong_file_has_its_exit_code_and_its_place() {
    for (file, words, code, said) in [
        (
            "drain_timeout: 5\n",
            &[][..],
            78,
            ":1:16: `drain_timeout`: invalid value '5'",
        ),
        (
            "drain: 5s\n",
            &["--print-config"][..],
            78,
            ":1:1: `drain` is not a setting",
        ),
        (
            "deny: [10.1.0.0/8]\n",
            &[][..],
            78,
            "did you mean 10.0.0.0/8?",
        ),
        ("", &[][..], 64, "--listen"),
        (
            "drain_timeout: 5\n",
            &["--max-flows", "x"][..],
            64,
            "--max-flows",
        ),
    ] {
        let (output, _) = outer(file, &[], words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{file}: {stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    let missing = ["--config", "/nowhere/outer.yaml"];
    let (output, _) = outer("", &[], &missing);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("/nowhere/outer.yaml"));
}
