//! The settings of `odyn-net`: flag, environment, file, and what the policy says.

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches};
use odyn_settings::{Error, Report, Settings};

use crate::cli::{Cli, DEFAULT_FILE};
use crate::exit::{Failure, StartError};
use crate::run;

/// What is asked for.
#[derive(Debug)]
pub enum Asked {
    /// Do this.
    Run(Box<Cli>),
    /// Print this and do nothing.
    Print(String),
}

/// Why nothing can be done.
#[derive(Debug)]
pub enum Refused {
    /// The command line or the environment is wrong, or asks for help.
    Usage(clap::Error),
    /// The settings file, or the policy that `--print-config` needs, is wrong.
    Start(StartError),
}

/// Reads the command line, the environment and the settings file.
///
/// # Errors
/// What is wrong in them.
pub fn load(args: impl IntoIterator<Item = OsString>) -> Result<Asked, Refused> {
    let settings = Settings::new(Cli::command(), DEFAULT_FILE);
    let mut loaded = settings.load(args).map_err(|error| match error {
        Error::Usage(error) => Refused::Usage(error),
        other => Refused::Start(StartError::new(Failure::Config, other.to_string())),
    })?;
    if let Some(format) = loaded.print {
        with_policy(&mut loaded.report).map_err(Refused::Start)?;
        return Ok(Asked::Print(loaded.report.render(format)));
    }
    Cli::from_arg_matches(&loaded.matches)
        .map(|cli| Asked::Run(Box::new(cli)))
        .map_err(Refused::Usage)
}

/// What nobody has set and the policy file says.
fn with_policy(report: &mut Report) -> Result<(), StartError> {
    let Some(path) = report
        .get("policy")
        .and_then(|policy| policy.values.first())
    else {
        return Ok(());
    };
    let path = path.clone();
    let policy = run::load_policy(Path::new(&path))?;
    let drain = humantime::format_duration(policy.settings().shutdown.drain_timeout);
    report.fall_back("drain_timeout", drain.to_string(), format!("policy {path}"));
    Ok(())
}
