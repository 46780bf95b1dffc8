//! Command line, environment and file, at the start and at each reload.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};
use odyn_settings::{Error as SettingsError, Report, Settings};

use crate::cli::{Cli, Command, DEFAULT_FILE, Run, Status};
use crate::exit::Failure;

/// What the command line asks for.
pub(crate) enum Asked {
    Run(Box<Configured>),
    Status(Status),
    Print(String),
}

/// Everything that was set, and by whom.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) args: Run,
    pub(crate) report: Report,
}

/// Reads it all.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn load(args: impl IntoIterator<Item = OsString>) -> Result<Asked, Failure> {
    let loaded = Settings::new(Cli::command(), DEFAULT_FILE)
        .load(args)
        .map_err(Failure::Settings)?;
    if let Some(format) = loaded.print {
        return Ok(Asked::Print(loaded.report.render(format)));
    }
    let cli = Cli::from_arg_matches(&loaded.matches)
        .map_err(|error| Failure::Settings(SettingsError::Usage(error)))?;
    let args = match cli.command {
        Command::Run(args) => *args,
        Command::Status(args) => return Ok(Asked::Status(args)),
    };
    Ok(Asked::Run(Box::new(Configured {
        args,
        report: loaded.report,
    })))
}
