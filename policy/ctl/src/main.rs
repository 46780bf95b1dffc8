//! `policyctl`: checks policy files, explains their decisions, and verifies attestation documents.

#![forbid(unsafe_code)]

mod attest;
mod check;
mod cli;
mod explain;
mod image;
mod output;
mod source;

use std::io;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// The result of a command, which becomes the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CommandOutcome {
    /// There is no finding to fail for; the flow is allowed.
    Fine,
    /// There are findings; the flow is denied.
    Findings,
    /// The question could not be answered: bad usage, or a file that cannot be read.
    CouldNotRun,
}

impl From<CommandOutcome> for ExitCode {
    fn from(outcome: CommandOutcome) -> Self {
        Self::from(match outcome {
            CommandOutcome::Fine => 0,
            CommandOutcome::Findings => 1,
            CommandOutcome::CouldNotRun => 2,
        })
    }
}

fn main() -> ExitCode {
    // clap ends with 2 for bad usage, 0 for help and version.
    let cli = cli::PolicyctlCli::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = match cli.command {
        cli::PolicyctlCommand::Check(args) => check::run(&args, &mut out),
        cli::PolicyctlCommand::Explain(args) => explain::run(&args, &mut out),
        cli::PolicyctlCommand::Attest(cli::AttestCommand::Verify(args)) => {
            attest::run(&args, &mut out)
        }
    };
    match result.and_then(|outcome| {
        out.flush()?;
        Ok(outcome)
    }) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "policyctl: {error:#}");
            CommandOutcome::CouldNotRun.into()
        }
    }
}
