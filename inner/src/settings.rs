//! Settings of a command: flag, environment variable, file, and what the policy says.

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches};
use odyn_settings::{Settings, SettingsError, SettingsReport};

use crate::cli::{DEFAULT_FILE, SIMULATE_KEYS};
use crate::policy_file;
use crate::start_error::StartError;

/// What the caller asks for.
#[derive(Debug)]
pub enum Request<C> {
    /// Run this command.
    Run(Box<C>),
    /// Print this text and end (`--print-config`).
    Print(String),
}

/// Why the settings cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The command line or the environment is wrong, or asks for help.
    Usage(clap::Error),
    /// The settings file, or the policy that `--print-config` needs, is wrong.
    Start(StartError),
}

/// Reads the command line, the environment and the settings file of `odyn-net run` and
/// `enclaver simulate`.
///
/// # Errors
/// What is wrong in them.
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

/// Adds the settings that the policy file has and no other source sets.
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
