//! The precedence of the sources, and the errors of a wrong file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use odyn_settings::{Loaded, PrintConfig, PrintFormat, SettingSource, Settings, SettingsError};
use tempfile::TempDir;

// Variables that every process has, or none: the tests share one process, whose environment they
// do not change.
const SET: &str = "CARGO_PKG_NAME";
const SET_TO: &str = "odyn-settings";

#[derive(Debug, Parser)]
#[command(name = "thing", args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Run),
    Other(Other),
    Bare,
}

#[derive(Debug, Args)]
struct Run {
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    print: PrintConfig,
    #[arg(long, required = true)]
    listen: Vec<String>,
    #[arg(long, env = SET)]
    name: Option<String>,
    #[arg(long, env = "ODYN_SETTINGS_NEVER_SET", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    #[arg(long, value_delimiter = ',')]
    deny: Vec<std::net::IpAddr>,
    #[arg(long, value_parser = ["error", "info"])]
    log_level: Option<String>,
    #[arg(long, action = ArgAction::SetTrue)]
    strict: bool,
    #[arg(long, conflicts_with = "strict")]
    lax: bool,
    #[arg(last = true)]
    words: Vec<String>,
}

#[derive(Debug, Args)]
struct Other {
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long)]
    elsewhere: Option<String>,
}

struct Place {
    dir: TempDir,
}

impl Place {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let place = Self { dir };
        std::fs::write(place.file(), text).expect("own directory");
        place
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("thing.yaml")
    }

    /// With the file as the default one.
    fn load(&self, words: &[&str]) -> Result<Loaded, SettingsError> {
        load(&self.file(), words)
    }

    fn run(&self, words: &[&str]) -> (Run, Loaded) {
        let loaded = self.load(words).unwrap_or_else(|error| panic!("{error}"));
        let cli = Cli::from_arg_matches(&loaded.matches).unwrap_or_else(|error| panic!("{error}"));
        match cli.command {
            Command::Run(run) => (run, loaded),
            other => panic!("{other:?}"),
        }
    }

    fn source(&self, words: &[&str], key: &str) -> SettingSource {
        let (_, loaded) = self.run(words);
        loaded.report.get(key).expect("a setting").source.clone()
    }

    /// The error, without the directory.
    fn wrong(&self, words: &[&str]) -> String {
        let error = self.load(words).expect_err("it is wrong");
        assert!(matches!(error, SettingsError::Wrong(_)), "{error:?}");
        let dir = format!("{}/", self.dir.path().display());
        error.to_string().replace(&dir, "")
    }
}

fn load(file: &Path, words: &[&str]) -> Result<Loaded, SettingsError> {
    let words = std::iter::once(&"thing").chain(words);
    let words: Vec<OsString> = words.map(OsString::from).collect();
    Settings::new(Cli::command(), file).load(words)
}

const LISTEN: &str = "listen: here\n";

#[test]
fn flag_over_environment_over_file_over_default() {
    let s = |text: &str| text.to_owned();
    let file = |place: &Place, line| SettingSource::File {
        path: place.file().into(),
        line,
    };
    let nothing = Place::new(LISTEN);
    let both = Place::new("listen: here\nname: file\ndrain-timeout: 5s\n");

    // A flag beats all.
    let (run, _) = both.run(&["run", "--name", "flag", "--drain-timeout", "1s"]);
    assert_eq!(run.name, Some(s("flag")));
    assert_eq!(run.drain_timeout, Duration::from_secs(1));
    let words = ["run", "--name", "flag"];
    assert_eq!(
        both.source(&words, "name"),
        SettingSource::Flag(s("--name"))
    );

    // The environment beats the file.
    let (run, _) = both.run(&["run"]);
    assert_eq!(run.name, Some(s(SET_TO)));
    assert_eq!(
        both.source(&["run"], "name"),
        SettingSource::Environment(s(SET))
    );

    // The file beats the default.
    assert_eq!(run.drain_timeout, Duration::from_secs(5));
    assert_eq!(both.source(&["run"], "drain_timeout"), file(&both, 3));

    // The default.
    let (run, _) = nothing.run(&["run"]);
    assert_eq!(run.drain_timeout, Duration::from_secs(30));
    assert_eq!(
        nothing.source(&["run"], "drain_timeout"),
        SettingSource::Default
    );
    assert_eq!(
        nothing.source(&["run"], "log_level"),
        SettingSource::Default
    );
}

#[test]
fn lists_replace_each_other_and_do_not_add_up() {
    let place = Place::new("listen: [one, two]\ndeny: [192.0.2.1, '::1']\n");
    let (run, _) = place.run(&["run"]);
    assert_eq!(run.listen, ["one", "two"]);
    assert_eq!(run.deny.len(), 2);
    let (run, _) = place.run(&["run", "--listen", "three"]);
    assert_eq!(run.listen, ["three"]);
    let (run, _) = Place::new("listen: a\ndeny: 192.0.2.1,192.0.2.2\n").run(&["run"]);
    assert_eq!(run.deny.len(), 2, "as in the flag");
    let (run, _) = Place::new("listen: a\ndeny: []\n").run(&["run"]);
    assert!(run.deny.is_empty());
}

#[test]
fn switches_are_true_or_false() {
    let (run, _) = Place::new("listen: a\nstrict: true\n").run(&["run"]);
    assert!(run.strict);
    let (run, _) = Place::new("listen: a\nstrict: false\n").run(&["run"]);
    assert!(!run.strict);
    // A flag that conflicts with a setting of the file takes precedence.
    let (run, _) = Place::new("listen: a\nstrict: true\n").run(&["run", "--lax"]);
    assert!(run.lax && !run.strict);
    let said = Place::new("strict: yes\n").wrong(&["run"]);
    assert_eq!(
        said,
        "thing.yaml:1:9: `strict` must be true or false, not the string \"yes\""
    );
}

#[test]
fn words_of_the_program_stay_its_own() {
    let place = Place::new(LISTEN);
    let (run, _) = place.run(&["run", "--", "run", "--drain-timeout", "x"]);
    assert_eq!(run.words, ["run", "--drain-timeout", "x"]);
}

#[test]
fn the_file_is_named_or_the_default_one() {
    let place = Place::new(LISTEN);
    let other = place.dir.path().join("other.yaml");
    std::fs::write(&other, "listen: there\n").expect("own directory");
    let named = other.display().to_string();
    let (run, loaded) = place.run(&["run", "--config", &named]);
    assert_eq!(run.listen, ["there"]);
    assert_eq!(run.config, Some(other.clone()));
    assert_eq!(loaded.file.as_deref(), Some(other.as_path()));

    let missing = place.dir.path().join("missing.yaml");
    let error = place
        .load(&["run", "--config", &missing.display().to_string()])
        .expect_err("a named file has to be there");
    assert!(error.to_string().contains("missing.yaml"), "{error}");
    assert!(matches!(
        error,
        SettingsError::Unreadable { named: true, .. }
    ));

    let loaded = load(&missing, &["run", "--listen", "x"]).expect("the default one need not be");
    assert_eq!(loaded.file, None);
}

#[test]
fn what_is_missing_everywhere_is_a_usage_error() {
    let error = Place::new("").load(&["run"]).expect_err("listen");
    assert!(matches!(&error, SettingsError::Usage(_)), "{error:?}");
    assert!(error.to_string().contains("--listen"), "{error}");
}

#[test]
fn a_wrong_flag_is_said_before_a_wrong_file() {
    let place = Place::new("nonsense: 1\n");
    for words in [&["run", "--bogus"][..], &["run", "--drain-timeout", "x"]] {
        let error = place.load(words).expect_err("wrong");
        assert!(matches!(error, SettingsError::Usage(_)), "{error:?}");
    }
    let error = place.load(&["run", "--help"]).expect_err("help");
    assert!(matches!(&error, SettingsError::Usage(e) if !e.use_stderr()));
}

#[test]
fn commands_share_a_file_and_some_have_none() {
    let place = Place::new("listen: here\nelsewhere: x\n");
    place.run(&["run"]);
    let loaded = place.load(&["other"]).expect("fine");
    assert_eq!(loaded.report.get("elsewhere").expect("it").values, ["x"]);
    Place::new("nonsense: 1\n")
        .load(&["bare"])
        .expect("no file");
}

#[test]
fn mistakes_have_a_place_and_a_way_out() {
    for (text, said) in [
        (
            "drain_timeot: 5s\n",
            "thing.yaml:1:1: `drain_timeot` is not a setting of thing (help: did you mean `drain_timeout`?)",
        ),
        (
            "banana: 1\n",
            "thing.yaml:1:1: `banana` is not a setting of thing (help: the settings are deny, drain_timeout, lax, listen, log_level, name, strict)",
        ),
        (
            "# first\ndrain_timeout: 5\n",
            "thing.yaml:2:16: `drain_timeout`: invalid value '5' for '--drain-timeout <DRAIN_TIMEOUT>': time unit needed, for example 5sec or 5ms",
        ),
        (
            "deny:\n  - 192.0.2.1\n  - nowhere\n",
            "thing.yaml:3:5: `deny`: invalid value 'nowhere' for '--deny <DENY>': invalid IP address syntax",
        ),
        (
            "log_level: loud\n",
            "thing.yaml:1:12: `log_level`: invalid value 'loud' for '--log-level <LOG_LEVEL>' [possible values: error, info]",
        ),
        (
            "drain_timeout: [5s]\n",
            "thing.yaml:1:16: `drain_timeout` takes one value, not a list (help: write `drain_timeout: value`)",
        ),
        (
            "deny: {a: b}\n",
            "thing.yaml:1:7: `deny` takes values, not a mapping (help: for example `deny: [one, two]`)",
        ),
        (
            "drain_timeout:\n",
            "thing.yaml:1:14: `drain_timeout` has no value (help: give it one, or remove the line to use the default)",
        ),
        (
            "log-level: info\nlog_level: error\n",
            "thing.yaml:2:1: the key `log_level` stands twice (help: remove one of the two: the first is in line 1)",
        ),
        (
            "config: x\n",
            "thing.yaml:1:1: `config` can't stand in the file (help: it is a flag only: remove the line)",
        ),
        (
            "listen: &a x\nname: *a\n",
            "thing.yaml:1:9: anchors are not supported here (help: remove `&name` and write the value where it is used)",
        ),
        (
            "- listen\n",
            "thing.yaml:1:1: the settings must be a mapping, not a list (help: write `key: value` lines)",
        ),
        (
            "listen: a\n---\nname: b\n",
            "thing.yaml:2:1: the file has more than one YAML document (help: remove everything from the second `---` on)",
        ),
    ] {
        assert_eq!(Place::new(text).wrong(&["run"]), said, "{text}");
    }
    let said = Place::new("deny:\n\t- x\n").wrong(&["run"]);
    assert!(
        said.contains("thing.yaml:2:") && said.contains("does not take tabs"),
        "{said}"
    );
    let said = Place::new("a: 1\nb: 2\n").wrong(&["run"]);
    assert_eq!(said.lines().count(), 2, "every mistake at once: {said}");
    let place = Place::new("");
    std::fs::write(place.file(), b"name: x\nlisten: \xff\n").expect("own directory");
    assert_eq!(
        place.wrong(&["run"]),
        "thing.yaml:2:1: the file is not UTF-8 text"
    );
}

#[test]
fn what_a_flag_overrides_has_to_be_right_all_the_same() {
    let place = Place::new("listen: here\ndrain_timeout: never\n");
    let said = place.wrong(&["run", "--drain-timeout", "1s"]);
    assert!(said.starts_with("thing.yaml:2:16: "), "{said}");
}

#[test]
fn print_config_names_the_source_of_each_value() {
    let place = Place::new("listen: ['vsock://any:7000', b c]\nlog_level: error\n");
    let (run, mut loaded) = place.run(&["run", "--print-config", "--strict"]);
    assert_eq!(run.print.print_config, Some(PrintFormat::Yaml));
    assert_eq!(loaded.print, Some(PrintFormat::Yaml));
    let file = place.file().display().to_string();
    let wanted = format!(
        "# file: {file}\n\
         listen: [vsock://any:7000, \"b c\"]  # {file}:1\n\
         name: odyn-settings                # environment CARGO_PKG_NAME\n\
         drain_timeout: 30s                 # default\n\
         # deny:                            # not set\n\
         log_level: error                   # {file}:2\n\
         strict: true                       # flag --strict\n\
         lax: false                         # default\n"
    );
    assert_eq!(loaded.report.render(PrintFormat::Yaml), wanted);

    loaded.report.fall_back("deny", "::1", "policy p.yaml");
    loaded
        .report
        .fall_back("log_level", "info", "policy p.yaml");
    let json = loaded.report.render(PrintFormat::Json);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["command"], "run");
    assert_eq!(json["file"], file.as_str());
    let by_key = |key: &str| {
        let settings = json["settings"].as_array().expect("a list");
        settings
            .iter()
            .find(|s| s["key"] == key)
            .expect(key)
            .clone()
    };
    assert_eq!(by_key("listen")["value"][1], "b c");
    assert_eq!(by_key("listen")["source"]["line"], 1);
    assert_eq!(by_key("strict")["value"], true);
    assert_eq!(by_key("deny")["source"]["name"], "policy p.yaml");
    assert_eq!(by_key("log_level")["value"], "error");
    assert_eq!(by_key("name")["source"]["kind"], "environment");
}

#[test]
fn what_is_printed_is_a_settings_file() {
    let place = Place::new(LISTEN);
    let odd = [
        "-", "a: b", "#x", "null", "{", "é", "a\"b", "*.x", "0x1", " ",
    ];
    let mut words = vec!["run", "--strict", "--deny", "::1"];
    for value in odd {
        words.extend(["--listen", value]);
    }
    let words: Vec<String> = words
        .iter()
        .map(|word| (*word).to_owned())
        .collect::<Vec<_>>();
    let words: Vec<String> = join_listens(words);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (run, loaded) = place.run(&words);
    let printed = Place::new(&loaded.report.render(PrintFormat::Yaml));
    let (again, _) = printed.run(&["run"]);
    assert_eq!(again.listen, run.listen);
    assert_eq!(again.listen, odd);
    assert_eq!(again.deny, run.deny);
    assert!(again.strict);
}

/// `--listen X` as one word: some of the values look like flags.
fn join_listens(words: Vec<String>) -> Vec<String> {
    let mut joined = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--listen" {
            joined.push(format!("--listen={}", words.next().unwrap_or_default()));
        } else {
            joined.push(word);
        }
    }
    joined
}

#[test]
fn incomplete_settings_can_be_printed() {
    let place = Place::new("drain_timeout: 5s\n");
    let loaded = place.load(&["run", "--print-config=json"]).expect("fine");
    assert_eq!(loaded.print, Some(PrintFormat::Json));
    let listen = loaded.report.get("listen").expect("a setting");
    assert!(listen.values.is_empty());
    let drain = loaded.report.get("drain_timeout").expect("a setting");
    assert_eq!(drain.values, ["5s"]);
    // But not wrong ones.
    let said = Place::new("drain_timeout: 5\n").wrong(&["run", "--print-config"]);
    assert!(said.contains(":1:16:"), "{said}");
}
