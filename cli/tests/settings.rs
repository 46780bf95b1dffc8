//! The settings of the executable: who wins, and what is wrong.

use std::process::{Command, Output};

use tempfile::TempDir;

const POLICY: &str = "version: v1\nname: x\nshutdown: {drain_timeout: 7s}\n";

struct Case {
    dir: TempDir,
}

impl Case {
    fn new(settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let case = Self { dir };
        case.write("odyn-net.yaml", settings);
        case.write("policy.yaml", POLICY);
        case
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("own directory");
    }

    fn run(&self, environment: &[(&str, &str)], words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_enclaver"));
        command.current_dir(&self.dir).env_clear();
        command.env("ODYN_CONFIG", "odyn-net.yaml");
        command.envs(environment.iter().copied());
        command.args(words).output().expect("it starts")
    }

    /// Value and source of a setting.
    fn setting(&self, environment: &[(&str, &str)], words: &[&str], key: &str) -> (String, String) {
        let words: Vec<&str> = words.iter().copied().chain(["--print-config"]).collect();
        let output = self.run(environment, &words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let printed = text(&output.stdout);
        let line = printed
            .lines()
            .find_map(|line| {
                line.trim_start_matches("# ")
                    .strip_prefix(&format!("{key}:"))
            })
            .unwrap_or_else(|| panic!("no {key}:\n{printed}"));
        let (value, source) = line.split_once('#').expect("a source");
        (value.trim().to_owned(), source.trim().to_owned())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn flag_over_environment_over_file_over_policy_over_default() {
    let file = "policy: policy.yaml\ndrain_timeout: 1s\n";
    let policy = "policy: policy.yaml\n";
    let environment = &[("ODYN_DRAIN_TIMEOUT", "2s")][..];
    let flag = &["--drain-timeout", "3s"][..];
    for (file, environment, flag, value, source) in [
        (file, environment, flag, "3s", "flag --drain-timeout"),
        (
            file,
            environment,
            &[][..],
            "2s",
            "environment ODYN_DRAIN_TIMEOUT",
        ),
        (file, &[][..], &[][..], "1s", "odyn-net.yaml:2"),
        (policy, &[][..], &[][..], "7s", "policy policy.yaml"),
        ("", &[][..], &[][..], "", "not set"),
    ] {
        let words: Vec<&str> = ["simulate"].iter().chain(flag).copied().collect();
        let found = Case::new(file).setting(environment, &words, "drain_timeout");
        assert_eq!(found, (value.to_owned(), source.to_owned()), "{file}");
    }
}

#[test]
fn run_and_simulate_share_a_file() {
    let case = Case::new("link: vsock://3:7000\nresolver: 192.0.2.1\nuser: nobody\n");
    let (value, _) = case.setting(&[], &["simulate"], "resolver");
    assert_eq!(value, "192.0.2.1");
}

#[test]
fn what_is_wrong_has_its_exit_code_and_its_place() {
    for (file, words, code, said) in [
        (
            "drain_timeout: 5\n",
            &["simulate"][..],
            78,
            "odyn-net.yaml:1:16: `drain_timeout`",
        ),
        (
            "pollicy: x\n",
            &["simulate", "--print-config"][..],
            78,
            "did you mean `policy`?",
        ),
        ("resolver: 192.0.2.1\n", &["simulate"][..], 64, "--policy"),
        ("", &["simulate", "--bogus"][..], 64, "--bogus"),
        (
            "policy: nowhere.yaml\n",
            &["simulate", "--print-config"][..],
            78,
            "nowhere.yaml",
        ),
    ] {
        let output = Case::new(file).run(&[], words);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{file}: {stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
}
