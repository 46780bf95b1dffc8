//! Reads the settings of a command: flag, environment variable, file, policy.

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches};
use odyn_settings::{Settings, SettingsError, SettingsReport};

use crate::cli::{DEFAULT_FILE, SIMULATE_KEYS};
use crate::policy_file;
use crate::start_error::StartError;

/// The command that the caller asked for.
#[derive(Debug)]
pub enum Request<C> {
    /// Run this command.
    Run(Box<C>),
    /// Print this text and exit (`--print-config`).
    Print(String),
}

/// The reason why the settings cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The command line or the environment is wrong, or asks for help.
    Usage(clap::Error),
    /// The settings file, or the policy that `--print-config` needs, is wrong.
    Start(StartError),
}

/// Reads the command line, the environment and the settings file.
///
/// # Errors
/// A setting is wrong; the error names it.
pub fn load<C: CommandFactory + FromArgMatches>(
    args: impl IntoIterator<Item = OsString>,
) -> Result<Request<C>, LoadError> {
    let settings = Settings::new(C::command(), DEFAULT_FILE).foreign(SIMULATE_KEYS);
    let mut loaded = settings.load(args).map_err(|error| match error {
        SettingsError::Usage(error) => LoadError::Usage(error),
        other => LoadError::Start(other.into()),
    })?;
    if let Some(format) = loaded.print {
        add_policy(&mut loaded.report).map_err(LoadError::Start)?;
        return Ok(Request::Print(loaded.report.render(format)));
    }
    C::from_arg_matches(&loaded.matches)
        .map(|cli| Request::Run(Box::new(cli)))
        .map_err(LoadError::Usage)
}

/// Adds the drain timeout of the policy file, unless another source has one.
fn add_policy(report: &mut SettingsReport) -> Result<(), StartError> {
    let Some(path) = report
        .get("policy")
        .and_then(|policy| policy.values.first())
    else {
        return Ok(());
    };
    let path = path.clone();
    let policy = policy_file::load(Path::new(&path))?;
    let drain = humantime::format_duration(policy.settings().shutdown.drain_timeout);
    report.fall_back("drain_timeout", drain.to_string(), format!("policy {path}"));
    Ok(())
}
