//! Errors of settings.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use odyn_yaml::{Span, YamlProblem};

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Clap's error about the command line or the environment; also the text of `--help`.
    #[error("{0}")]
    Usage(clap::Error),
    /// The file cannot be read.
    #[error("cannot read the settings in {}: {source}{}", path.display(), advice(*named))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Whether the user named the file.
        named: bool,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file has at least one mistake.
    #[error("{}", lines(.0))]
    Wrong(Vec<FileMistake>),
}

fn advice(named: bool) -> &'static str {
    if named {
        " (create it, or leave out --config)"
    } else {
        " (make it readable, or remove it)"
    }
}

fn lines(wrong: &[FileMistake]) -> String {
    let lines: Vec<String> = wrong.iter().map(FileMistake::to_string).collect();
    lines.join("\n")
}

/// A mistake in a file of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileMistake {
    /// The file.
    pub file: Arc<Path>,
    /// The place of the mistake.
    pub span: Span,
    /// The mistake, without a full stop.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
}

impl FileMistake {
    /// A mistake at a place.
    pub fn new(file: &Arc<Path>, span: Span, message: impl Into<String>) -> Self {
        Self {
            file: Arc::clone(file),
            span,
            message: message.into(),
            help: None,
        }
    }

    /// The remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn from_problem(file: &Arc<Path>, problem: YamlProblem) -> Self {
        let mut wrong = Self::new(file, problem.span, problem.message);
        wrong.help = problem.help;
        wrong
    }
}

impl fmt::Display for FileMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, span) = (self.file.display(), self.span);
        write!(f, "{file}:{span}: {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, " (help: {help})"),
            None => Ok(()),
        }
    }
}
