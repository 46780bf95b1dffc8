//! The entries of the file as arguments of the command line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use odyn_yaml::{ScalarKind, YamlKey, YamlNode, YamlValue, nearest, short};

use crate::error::{FileMistake, SettingsError};
use crate::file::name;
use crate::{CONFIG, PRINT, is_set};

/// Checks the entries of the file against a command.
pub(crate) struct FileArgsReader<'a> {
    pub(crate) root: &'a Command,
    pub(crate) command: &'a Command,
    /// The arguments that flags and environment variables have set.
    pub(crate) given: &'a ArgMatches,
    /// Keys that another executable reads from the same file.
    pub(crate) foreign: &'static [&'static str],
    pub(crate) file: &'a Arc<Path>,
}

/// The file's arguments.
#[derive(Default)]
pub(crate) struct FileArgs {
    pub(crate) args: Vec<OsString>,
    /// The lines of the arguments that the file decides, by the arguments' IDs.
    pub(crate) used: BTreeMap<String, u32>,
}

/// Whether a command reads a file.
pub(crate) fn takes_file(command: &Command) -> bool {
    command.get_arguments().any(|arg| arg.get_id() == CONFIG)
}

/// The arguments that the file may set, with their keys.
pub(crate) fn settable(command: &Command) -> impl Iterator<Item = (String, &Arg)> {
    command
        .get_arguments()
        .filter(|arg| arg.get_id() != CONFIG && arg.get_id() != PRINT)
        .filter(|arg| {
            matches!(
                arg.get_action(),
                ArgAction::Set | ArgAction::Append | ArgAction::SetTrue
            )
        })
        .filter_map(|arg| Some((name(arg.get_long()?), arg)))
}

impl FileArgsReader<'_> {
    /// Checks every entry, also those that a flag or a variable overrides.
    ///
    /// So a mistake in the file is found now, not when the flag is removed.
    pub(crate) fn take(
        &self,
        entries: Vec<(YamlKey, YamlNode)>,
    ) -> Result<FileArgs, SettingsError> {
        let known: BTreeMap<String, &Arg> = settable(self.command).collect();
        let mut file_args = FileArgs::default();
        let mut wrong = Vec::new();
        for (key, value) in entries {
            let key_name = name(&key.text);
            if let Some(arg) = known.get(&key_name) {
                match self.args(&key_name, arg, &value) {
                    Ok(args) if self.decides(arg) => {
                        file_args
                            .used
                            .insert(arg.get_id().to_string(), key.span.line);
                        file_args.args.extend(args);
                    }
                    Ok(_) => {}
                    Err(mistakes) => wrong.extend(mistakes),
                }
            } else if !self.is_of_another_command(&key_name)
                && !self.foreign.contains(&key_name.as_str())
            {
                wrong.push(self.unknown(&key, &key_name, &known));
            }
        }
        if wrong.is_empty() {
            Ok(file_args)
        } else {
            Err(SettingsError::Wrong(wrong))
        }
    }

    /// Whether the file decides an argument.
    ///
    /// It does unless a flag or a variable sets this argument, or one that conflicts with it.
    fn decides(&self, arg: &Arg) -> bool {
        let excludes = |one: &Arg, other: &Arg| {
            let mut excluded = self.command.get_arg_conflicts_with(one).into_iter();
            excluded.any(|arg| arg.get_id() == other.get_id())
        };
        // Either of the two may declare the conflict.
        !self
            .command
            .get_arguments()
            .filter(|other| is_set(self.given, other.get_id().as_str()))
            .any(|other| {
                other.get_id() == arg.get_id() || excludes(other, arg) || excludes(arg, other)
            })
    }

    fn is_of_another_command(&self, key: &str) -> bool {
        self.root
            .get_subcommands()
            .filter(|command| takes_file(command))
            .any(|command| settable(command).any(|(name, _)| name == key))
    }

    fn unknown(
        &self,
        key: &YamlKey,
        key_name: &str,
        known: &BTreeMap<String, &Arg>,
    ) -> FileMistake {
        let shown = short(&key.text);
        if key_name == CONFIG || key_name == PRINT {
            return FileMistake::new(
                self.file,
                key.span,
                format!("`{shown}` can't stand in the file"),
            )
            .help("it is a flag only: remove the line");
        }
        let message = format!("`{shown}` is not a setting of {}", self.root.get_name());
        let names = || known.keys().map(String::as_str);
        let help = if key.text == "<<" {
            "merge keys are not supported: write the keys out".to_owned()
        } else if let Some(near) = nearest(key_name, names()) {
            format!("did you mean `{near}`?")
        } else {
            let names: Vec<&str> = names().collect();
            format!("the settings are {}", names.join(", "))
        };
        FileMistake::new(self.file, key.span, message).help(help)
    }

    /// The flag with each of the values, if clap accepts them.
    fn args(
        &self,
        key: &str,
        arg: &Arg,
        value: &YamlNode,
    ) -> Result<Vec<OsString>, Vec<FileMistake>> {
        let flag = format!("--{}", arg.get_long().unwrap_or_default());
        let one = |wrong| vec![wrong];
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            return match switch(value) {
                Some(true) => Ok(vec![flag.into()]),
                Some(false) => Ok(Vec::new()),
                None => {
                    let message =
                        format!("`{key}` must be true or false, not {}", value.describe());
                    Err(one(FileMistake::new(self.file, value.span, message)))
                }
            };
        }
        let repeatable = matches!(arg.get_action(), ArgAction::Append);
        let items = match &value.value {
            YamlValue::Sequence(items) if repeatable => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        let mut args = Vec::new();
        let mut wrong = Vec::new();
        for item in items {
            match self.arg(key, &flag, repeatable, item) {
                Ok(arg) => args.push(arg),
                Err(mistake) => wrong.push(mistake),
            }
        }
        if wrong.is_empty() {
            Ok(args)
        } else {
            Err(wrong)
        }
    }

    fn arg(
        &self,
        key: &str,
        flag: &str,
        repeatable: bool,
        item: &YamlNode,
    ) -> Result<OsString, FileMistake> {
        let wrong = |message: String| FileMistake::new(self.file, item.span, message);
        let scalar = match &item.value {
            YamlValue::Scalar(scalar) if scalar.kind() == ScalarKind::Null => {
                return Err(wrong(format!("`{key}` has no value"))
                    .help("give it one, or remove the line to use the default"));
            }
            YamlValue::Scalar(scalar) => scalar,
            YamlValue::Sequence(_) | YamlValue::Mapping(_) => {
                let wanted = if repeatable { "values" } else { "one value" };
                let message = format!("`{key}` takes {wanted}, not {}", item.describe());
                let mistake = wrong(message);
                return Err(match repeatable {
                    true => mistake.help(format!("for example `{key}: [one, two]`")),
                    false => mistake.help(format!("write `{key}: value`")),
                });
            }
        };
        let word = format!("{flag}={}", scalar.text);
        match self.objection(&word) {
            None => Ok(word.into()),
            Some(text) => Err(wrong(format!("`{key}`: {text}"))),
        }
    }

    /// The error message of clap about an argument, if it refuses it.
    fn objection(&self, word: &str) -> Option<String> {
        let command = self.command.clone().no_binary_name(true);
        let error = command.try_get_matches_from([word]).err()?;
        // Other arguments may be missing or conflict; that is no fault of this value.
        if matches!(
            error.kind(),
            ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict
        ) {
            return None;
        }
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let lines = text.lines().take_while(|line| {
            !line.starts_with("For more information") && !line.starts_with("Usage:")
        });
        let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        Some(words.join(" "))
    }
}

fn switch(value: &YamlNode) -> Option<bool> {
    match &value.value {
        YamlValue::Scalar(scalar) => match scalar.kind() {
            ScalarKind::Bool(on) => Some(on),
            _ => None,
        },
        YamlValue::Sequence(_) | YamlValue::Mapping(_) => None,
    }
}
