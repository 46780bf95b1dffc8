//! The `odyn-net` executable.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use odyn_net::cli::Command;
use odyn_net::exit::{Failure, StartError};
use odyn_net::settings::{self, Asked, Refused};
use odyn_net::{doctor, run, simulate};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match settings::load(std::env::args_os()) {
        Ok(Asked::Run(cli)) => cli,
        Ok(Asked::Print(text)) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Refused::Usage(error)) => {
            // What cannot be printed has nobody to read it.
            let _ = error.print();
            return match error.use_stderr() {
                true => Failure::Usage.into(),
                false => ExitCode::SUCCESS,
            };
        }
        Err(Refused::Start(error)) => return failed(&error),
    };
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Simulate(args) => simulate::host(args),
        Command::SimulatedGuest(args) => simulate::guest(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::DoctorTrial => {
            doctor::trial::child();
            Ok(ExitCode::SUCCESS)
        }
        Command::Program(launch) => Err(launch.become_program()),
    };
    result.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &StartError) -> ExitCode {
    eprintln!("odyn-net: {error}");
    error.failure.into()
}
