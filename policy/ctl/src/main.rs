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

/// What a run found out; the exit code says it to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Nothing to object to; the flow is allowed.
    Fine,
    /// There are findings; the flow is denied.
    Findings,
    /// The question could not be answered: bad usage, a file that can't be read.
    CouldNotRun,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Fine => 0,
            Outcome::Findings => 1,
            Outcome::CouldNotRun => 2,
        })
    }
}

fn main() -> ExitCode {
    // clap ends with 2 for bad usage, 0 for help and version.
    let cli = cli::Cli::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = match cli.command {
        cli::Command::Check(args) => check::run(&args, &mut out),
        cli::Command::Explain(args) => explain::run(&args, &mut out),
        cli::Command::Attest(cli::AttestCommand::Verify(args)) => attest::run(&args, &mut out),
    };
    match result.and_then(|outcome| {
        out.flush()?;
        Ok(outcome)
    }) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "policyctl: {error:#}");
            Outcome::CouldNotRun.into()
        }
    }
}
