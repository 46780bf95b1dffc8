//! The `enclaver` executable.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use enclaver::args::{Cli, Command};
use enclaver::error::CliError;
use enclaver::{doctor, simulate};
use odyn_net::exit::Failure;
use odyn_net::settings::{LoadError, Request, load};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    odyn_process::disable_huge_pages();
    let cli = match load::<Cli>(std::env::args_os()) {
        Ok(Request::Run(cli)) => cli,
        Ok(Request::Print(text)) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(LoadError::Usage(error)) => {
            // Standard error may be closed; the exit code reports the failure, too.
            let _ = error.print();
            return match error.use_stderr() {
                true => Failure::Usage.into(),
                false => ExitCode::SUCCESS,
            };
        }
        Err(LoadError::Start(error)) => return failed(error.into()),
    };
    let result = match cli.command {
        Command::Simulate(args) => simulate::host(args),
        Command::SimulatedGuest(args) => simulate::guest(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::DoctorTrial => {
            doctor::trial::child();
            Ok(ExitCode::SUCCESS)
        }
        Command::App(launch) => Err(launch.become_app().into()),
    };
    result.unwrap_or_else(failed)
}

fn failed(error: CliError) -> ExitCode {
    eprintln!("enclaver: {error}");
    error.failure().into()
}
