//! The value and the source of each setting, for `--print-config`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, ValueEnum};
use serde_json::{Value, json};

use crate::file_args::settable;

/// The flag that prints the settings instead of doing the work.
#[derive(Debug, Clone, Default, Args)]
pub struct PrintConfig {
    /// Print every setting with its value and its source as a settings file, and exit.
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yaml"
    )]
    pub print_config: Option<PrintFormat>,
}

/// The format of printed settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrintFormat {
    /// A settings file with the sources as comments.
    Yaml,
    /// JSON.
    Json,
}

/// The source of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingSource {
    /// A flag, by its name.
    Flag(String),
    /// An environment variable, by its name.
    Environment(String),
    /// A line of the file.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line.
        line: u32,
    },
    /// A fallback of the executable, described in words.
    Fallback(String),
    /// The default, or no value.
    Default,
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Fallback(words) => f.write_str(words),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The key in the file.
    pub key: String,
    /// The values as written; none if the setting is not set.
    pub values: Vec<String>,
    /// Whether the setting takes more than one value.
    pub is_list: bool,
    /// Whether the setting is a switch.
    pub is_switch: bool,
    /// The source of the values.
    pub source: SettingSource,
}

/// Every setting of a command, in the order of its help.
#[derive(Debug, Clone, Default)]
pub struct SettingsReport {
    command: String,
    file: Option<Arc<Path>>,
    settings: Vec<Setting>,
}

impl SettingsReport {
    pub(crate) fn new(
        command: &Command,
        given: &ArgMatches,
        last: &ArgMatches,
        from_file: &BTreeMap<String, u32>,
        file: Option<&Arc<Path>>,
    ) -> Self {
        let settings = settable(command)
            .filter(|(_, arg)| !arg.is_hide_set())
            .map(|(key, arg)| {
                let values = last.get_raw(arg.get_id().as_str()).into_iter().flatten();
                Setting {
                    key,
                    values: values.map(|v| v.to_string_lossy().into_owned()).collect(),
                    is_list: matches!(arg.get_action(), ArgAction::Append),
                    is_switch: matches!(arg.get_action(), ArgAction::SetTrue),
                    source: source(arg, given, from_file, file),
                }
            });
        Self {
            command: command.get_name().to_owned(),
            file: file.cloned(),
            settings: settings.collect(),
        }
    }

    /// Every setting.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The setting with this key.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// Sets the fallback value of a setting that has none.
    pub fn fall_back(&mut self, key: &str, value: impl Into<String>, source: impl Into<String>) {
        let unset = |setting: &&mut Setting| setting.key == key && setting.values.is_empty();
        if let Some(setting) = self.settings.iter_mut().find(unset) {
            setting.values = vec![value.into()];
            setting.source = SettingSource::Fallback(source.into());
        }
    }

    /// The text in this format, with a line end.
    pub fn render(&self, format: PrintFormat) -> String {
        match format {
            PrintFormat::Yaml => self.yaml(),
            PrintFormat::Json => format!("{:#}\n", self.json()),
        }
    }

    fn yaml(&self) -> String {
        let left: Vec<String> = self.settings.iter().map(Setting::yaml).collect();
        let wide = left.iter().map(|text| text.chars().count());
        // A long list does not move the comments of all other lines.
        let width = wide.filter(|width| *width <= 48).max().unwrap_or(0);
        let mut text = match &self.file {
            Some(path) => format!("# file: {}\n", path.display()),
            None => "# file: none\n".to_owned(),
        };
        for (left, setting) in left.iter().zip(&self.settings) {
            let source = match (&setting.source, setting.values.is_empty()) {
                (SettingSource::Default, true) => "not set".to_owned(),
                (source, _) => source.to_string(),
            };
            text.push_str(&format!("{left:width$}  # {source}\n"));
        }
        text
    }

    fn json(&self) -> Value {
        let settings: Vec<Value> = self.settings.iter().map(Setting::json).collect();
        json!({
            "command": self.command,
            "file": self.file.as_ref().map(|path| path.display().to_string()),
            "settings": settings,
        })
    }
}

fn source(
    arg: &Arg,
    given: &ArgMatches,
    from_file: &BTreeMap<String, u32>,
    file: Option<&Arc<Path>>,
) -> SettingSource {
    let id = arg.get_id().as_str();
    match given.value_source(id) {
        Some(ValueSource::CommandLine) => {
            SettingSource::Flag(format!("--{}", arg.get_long().unwrap_or(id)))
        }
        Some(ValueSource::EnvVariable) => {
            let name = arg.get_env().unwrap_or(OsStr::new(id));
            SettingSource::Environment(name.to_string_lossy().into_owned())
        }
        _ => match (from_file.get(id), file) {
            (Some(line), Some(path)) => SettingSource::File {
                path: Arc::clone(path),
                line: *line,
            },
            _ => SettingSource::Default,
        },
    }
}

impl Setting {
    fn yaml(&self) -> String {
        let key = &self.key;
        match self.values.as_slice() {
            [] => format!("# {key}:"),
            values if self.is_list => {
                let values: Vec<String> = values.iter().map(|value| scalar(value)).collect();
                format!("{key}: [{}]", values.join(", "))
            }
            [value, ..] if self.is_switch => format!("{key}: {value}"),
            [value, ..] => format!("{key}: {}", scalar(value)),
        }
    }

    fn json(&self) -> Value {
        let value = match self.values.as_slice() {
            values if self.is_list => json!(values),
            [] => Value::Null,
            [value, ..] if self.is_switch => json!(value == "true"),
            [value, ..] => json!(value),
        };
        let source = match &self.source {
            SettingSource::Flag(name) => json!({"kind": "flag", "name": name}),
            SettingSource::Environment(name) => json!({"kind": "environment", "name": name}),
            SettingSource::File { path, line } => {
                json!({"kind": "file", "path": path.display().to_string(), "line": line})
            }
            SettingSource::Fallback(words) => json!({"kind": "fallback", "name": words}),
            SettingSource::Default => json!({"kind": "default"}),
        };
        json!({"key": self.key, "value": value, "source": source})
    }
}

/// A value as YAML: plain where that cannot be misread, and else as JSON, which is YAML.
fn scalar(value: &str) -> String {
    let plain = value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && !value.ends_with(':')
        && !value.eq_ignore_ascii_case("null")
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./:=@%+".contains(c));
    if plain {
        value.to_owned()
    } else {
        Value::from(value).to_string()
    }
}
