//! The `odyn-net` executable.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use odyn_net::cli::{Cli, Command};
use odyn_net::exit::Failure;
use odyn_net::{run, simulate};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // What cannot be printed has nobody to read it.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => Failure::Usage.into(),
            };
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Simulate(args) => simulate::host(args),
        Command::SimulatedGuest(args) => simulate::guest(args),
        Command::Program(launch) => Err(launch.become_program()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("odyn-net: {error}");
        error.failure.into()
    })
}
