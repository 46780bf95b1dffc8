//! Settings of an executable: flag over environment over file over default.
//!
//! The executable declares its flags with clap, environment variables included, and gets the file
//! for free: a YAML mapping whose keys are the long flags, with `_` or `-`. A value of the file is
//! given to clap as if it were a flag, so that it is checked by the same parser and refused in the
//! same words, with file, line and column before them.
//!
//! ```yaml
//! drain_timeout: 30s
//! deny: [169.254.0.0/16, "fe80::/10"]
//! ```
//!
//! A command reads a file when it has an argument `config`; it prints what it would do when it has
//! [`PrintConfig`] and the flag is there. Flags of the command's other subcommands are no errors
//! in the file: `run` and `simulate` share one.

#![forbid(unsafe_code)]

mod error;
mod feed;
mod file;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

pub use error::{Error, Wrong};
pub use odyn_yaml::{Scalar, ScalarKind, Span, YamlKey, YamlNode, YamlValue};
pub use report::{Format, PrintConfig, Report, Setting, Source};

/// The argument that names the file.
pub(crate) const CONFIG: &str = "config";
/// The argument of [`PrintConfig`].
pub(crate) const PRINT: &str = "print_config";

/// Where the settings of an executable come from.
#[derive(Debug, Clone)]
pub struct Settings {
    command: Command,
    default_file: PathBuf,
    sections: Vec<&'static str>,
    foreign: &'static [&'static str],
}

/// What was found.
#[derive(Debug)]
pub struct Loaded {
    /// As if every value had come by a flag: for `FromArgMatches`.
    pub matches: ArgMatches,
    /// Every setting with its source; empty when the command takes no file.
    pub report: Report,
    /// What is to be printed instead of anything else.
    pub print: Option<Format>,
    /// The file that was read.
    pub file: Option<Arc<Path>>,
    /// The declared sections that the file has.
    pub sections: Vec<Section>,
}

/// A key of the file that the executable itself makes sense of.
#[derive(Debug, Clone)]
pub struct Section {
    /// The key.
    pub key: YamlKey,
    /// Its value.
    pub value: YamlNode,
    /// The file, for [`Wrong::new`].
    pub file: Arc<Path>,
}

impl Settings {
    /// The settings of a command. `default_file` is used when no other is named and it exists.
    pub fn new(command: Command, default_file: impl Into<PathBuf>) -> Self {
        Self {
            command,
            default_file: default_file.into(),
            sections: Vec::new(),
            foreign: &[],
        }
    }

    /// A key of the file that is no flag: its value is handed through in [`Loaded::sections`].
    #[must_use]
    pub fn section(mut self, key: &'static str) -> Self {
        self.sections.push(key);
        self
    }

    /// Keys that another executable reads from the same file: no mistakes, and ignored here.
    #[must_use]
    pub fn foreign(mut self, keys: &'static [&'static str]) -> Self {
        self.foreign = keys;
        self
    }

    /// Reads the command line (the executable's name first), the environment and the file.
    ///
    /// # Errors
    /// What clap says of the command line or the environment, help and version included; what is
    /// wrong in the file.
    pub fn load(&self, args: impl IntoIterator<Item = OsString>) -> Result<Loaded, Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        // Without the file, something may be missing that is in the file. Any other complaint is
        // about what the user has typed.
        let first = match self.command.clone().try_get_matches_from(&args) {
            Ok(matches) => matches,
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
                self.lenient(&args)?
            }
            Err(error) => return Err(Error::Usage(error)),
        };
        let Some((command, given)) = self.with_file(&first) else {
            return Ok(Loaded {
                matches: self.strict(&args)?,
                report: Report::default(),
                print: None,
                file: None,
                sections: Vec::new(),
            });
        };
        let file = self.file_of(given);
        let text = match &file {
            Some(path) => Some(file::read(path, is_set(given, CONFIG))?),
            None => None,
        };
        let mut fed = feed::Fed::default();
        if let (Some(path), Some(text)) = (&file, &text) {
            let entries = file::entries(path, text)?;
            fed = feed::Feed {
                root: &self.command,
                command,
                given,
                sections: &self.sections,
                foreign: self.foreign,
                file: path,
            }
            .take(entries)?;
        }

        let args = with_words(args, command.get_name(), &fed.words);
        let print = given.try_get_one::<Format>(PRINT).ok().flatten().copied();
        let matches = match print {
            // To see what is set it need not be complete.
            Some(_) => self.lenient(&args)?,
            None => self.strict(&args)?,
        };
        let last = matches
            .subcommand()
            .map_or(&matches, |(_, matches)| matches);
        let report = Report::new(command, given, last, &fed.used, file.as_ref());
        Ok(Loaded {
            report,
            print,
            file,
            sections: fed.sections,
            matches,
        })
    }

    fn strict(&self, args: &[OsString]) -> Result<ArgMatches, Error> {
        let parsed = self.command.clone().try_get_matches_from(args);
        parsed.map_err(Error::Usage)
    }

    fn lenient(&self, args: &[OsString]) -> Result<ArgMatches, Error> {
        let command = self.command.clone().ignore_errors(true);
        command.try_get_matches_from(args).map_err(Error::Usage)
    }

    /// The subcommand, if it takes a file.
    fn with_file<'a>(&'a self, matches: &'a ArgMatches) -> Option<(&'a Command, &'a ArgMatches)> {
        let (name, given) = matches.subcommand()?;
        let command = self.command.find_subcommand(name)?;
        feed::takes_file(command).then_some((command, given))
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

/// The command line with more words right after the name of the subcommand: what the user typed
/// comes after them, and what stands behind `--` stays there.
fn with_words(mut args: Vec<OsString>, command: &str, words: &[OsString]) -> Vec<OsString> {
    // The commands before it have no flags with values that could be taken for it.
    if let Some(at) = args.iter().skip(1).position(|word| word == command) {
        args.splice(at + 2..at + 2, words.iter().cloned());
    }
    args
}
