//! Reads command line, environment and settings file, at the start and at each reload.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};
use odyn_settings::{Settings, SettingsError, SettingsReport};

use crate::cli::{DEFAULT_FILE, OuterCli, OuterCommand, RunArgs, StatusArgs};
use crate::exit::DaemonError;

/// What to do, from the command line.
pub(crate) enum Invocation {
    Run(Box<LoadedSettings>),
    Status(StatusArgs),
    Print(String),
}

/// The settings of `run`, each with its source.
#[derive(Debug)]
pub(crate) struct LoadedSettings {
    pub(crate) args: RunArgs,
    pub(crate) report: SettingsReport,
}

/// Reads the command line, the environment and the settings file.
///
/// # Errors
/// A setting is wrong; the error says where.
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
