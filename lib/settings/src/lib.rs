//! Settings of an executable: flag over environment over file over default.
//!
//! The executable declares its flags and environment variables with clap, and gets the file for
//! free: a YAML mapping whose keys are the long flags, with `_` or `-`. Clap gets a value of the
//! file as if it were a flag, so the same parser checks it, and its error has the file, line and
//! column.
//!
//! ```yaml
//! drain_timeout: 30s
//! deny: [169.254.0.0/16, "fe80::/10"]
//! ```
//!
//! A command with an argument `config` reads a file. One with [`PrintConfig`] prints its settings
//! if that flag is set. Flags of other subcommands are no errors in the file, so that `run` and
//! `simulate` can share one.

#![forbid(unsafe_code)]

mod error;
mod file;
mod file_args;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

pub use error::{FileMistake, SettingsError};
use file_args::{FileArgs, FileArgsReader};

pub use odyn_yaml::Span;
pub use report::{PrintConfig, PrintFormat, Setting, SettingSource, SettingsReport};

/// The argument that names the file.
pub(crate) const CONFIG: &str = "config";
/// The argument of [`PrintConfig`].
pub(crate) const PRINT: &str = "print_config";

/// The sources of an executable's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    command: Command,
    default_file: PathBuf,
    foreign: &'static [&'static str],
}

/// The settings that were loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The values as if all came from flags, for `FromArgMatches`.
    pub matches: ArgMatches,
    /// Every setting with its source; empty if the command takes no file.
    pub report: SettingsReport,
    /// The format in which to print the settings, and do nothing else.
    pub print: Option<PrintFormat>,
    /// The file that was read.
    pub file: Option<Arc<Path>>,
}

impl Settings {
    /// The settings of a command. `default_file` is used if it exists and no other file is named.
    pub fn new(command: Command, default_file: impl Into<PathBuf>) -> Self {
        Self {
            command,
            default_file: default_file.into(),
            foreign: &[],
        }
    }

    /// Keys that another executable reads from the same file: ignored here, and no mistakes.
    #[must_use]
    pub fn foreign(mut self, keys: &'static [&'static str]) -> Self {
        self.foreign = keys;
        self
    }

    /// Reads the command line (the executable's name first), the environment and the file.
    ///
    /// # Errors
    /// An error of clap about the command line or the environment, which includes help and version,
    /// or mistakes in the file.
    pub fn load(&self, args: impl IntoIterator<Item = OsString>) -> Result<Loaded, SettingsError> {
        let args: Vec<OsString> = args.into_iter().collect();
        // The file may have an argument that is missing here. Any other error is about the command
        // line.
        let first = match self.command.clone().try_get_matches_from(&args) {
            Ok(matches) => matches,
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                self.lenient(&args)?
            }
            Err(error) => return Err(SettingsError::Usage(error)),
        };
        let Some((command, given)) = self.with_file(&first) else {
            return Ok(Loaded {
                matches: self.strict(&args)?,
                report: SettingsReport::default(),
                print: None,
                file: None,
            });
        };
        let file = self.file_of(given);
        let text = match &file {
            Some(path) => Some(file::read(path, is_set(given, CONFIG))?),
            None => None,
        };
        let mut file_args = FileArgs::default();
        if let (Some(path), Some(text)) = (&file, &text) {
            let entries = file::entries(path, text)?;
            file_args = FileArgsReader {
                root: &self.command,
                command,
                given,
                foreign: self.foreign,
                file: path,
            }
            .take(entries)?;
        }

        let args = with_file_args(args, command.get_name(), &file_args.args);
        let print = given
            .try_get_one::<PrintFormat>(PRINT)
            .ok()
            .flatten()
            .copied();
        let matches = match print {
            // The settings can be printed although some are missing.
            Some(_) => self.lenient(&args)?,
            None => self.strict(&args)?,
        };
        let last = matches
            .subcommand()
            .map_or(&matches, |(_, matches)| matches);
        let report = SettingsReport::new(command, given, last, &file_args.used, file.as_ref());
        Ok(Loaded {
            report,
            print,
            file,
            matches,
        })
    }

    fn strict(&self, args: &[OsString]) -> Result<ArgMatches, SettingsError> {
        let parsed = self.command.clone().try_get_matches_from(args);
        parsed.map_err(SettingsError::Usage)
    }

    fn lenient(&self, args: &[OsString]) -> Result<ArgMatches, SettingsError> {
        let command = self.command.clone().ignore_errors(true);
        command
            .try_get_matches_from(args)
            .map_err(SettingsError::Usage)
    }

    /// The subcommand, if it takes a file.
    fn with_file<'a>(&'a self, matches: &'a ArgMatches) -> Option<(&'a Command, &'a ArgMatches)> {
        let (name, given) = matches.subcommand()?;
        let command = self.command.find_subcommand(name)?;
        file_args::takes_file(command).then_some((command, given))
    }

    fn file_of(&self, given: &ArgMatches) -> Option<Arc<Path>> {
        if let Ok(Some(path)) = given.try_get_one::<PathBuf>(CONFIG) {
            return Some(Arc::from(path.as_path()));
        }
        self.default_file
            .exists()
            .then(|| Arc::from(self.default_file.as_path()))
    }
}

/// Whether the user has set an argument by flag or environment.
pub(crate) fn is_set(matches: &ArgMatches, id: &str) -> bool {
    matches!(
        matches.value_source(id),
        Some(ValueSource::CommandLine | ValueSource::EnvVariable)
    )
}

/// The command line with the file's arguments right after the name of the subcommand.
///
/// The user's arguments come after them, and those after `--` stay there.
fn with_file_args(mut args: Vec<OsString>, command: &str, more: &[OsString]) -> Vec<OsString> {
    // No flag before the subcommand has a value that could be taken for its name.
    if let Some(at) = args.iter().skip(1).position(|word| word == command) {
        args.splice(at + 2..at + 2, more.iter().cloned());
    }
    args
}
