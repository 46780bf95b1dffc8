//! Command line, environment and file, at the start and at each reload.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};
use odyn_settings::{Error as SettingsError, Report, Settings};

use crate::cli::{DEFAULT_FILE, OuterCli, OuterCommand, RunArgs, StatusArgs};
use crate::exit::DaemonError;

/// What the command line asks for.
pub(crate) enum Invocation {
    Run(Box<LoadedSettings>),
    Status(StatusArgs),
    Print(String),
}

/// Everything that was set, and by whom.
#[derive(Debug)]
pub(crate) struct LoadedSettings {
    pub(crate) args: RunArgs,
    pub(crate) report: Report,
}

/// Reads it all.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn load(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, DaemonError> {
    let loaded = Settings::new(OuterCli::command(), DEFAULT_FILE)
        .load(args)
        .map_err(DaemonError::Settings)?;
    if let Some(format) = loaded.print {
        return Ok(Invocation::Print(loaded.report.render(format)));
    }
    let cli = OuterCli::from_arg_matches(&loaded.matches)
        .map_err(|error| DaemonError::Settings(SettingsError::Usage(error)))?;
    let args = match cli.command {
        OuterCommand::Run(args) => *args,
        OuterCommand::Status(args) => return Ok(Invocation::Status(args)),
    };
    Ok(Invocation::Run(Box::new(LoadedSettings {
        args,
        report: loaded.report,
    })))
}
