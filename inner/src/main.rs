//! The `odyn-net` executable.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use odyn_net::cli::Command;
use odyn_net::exit::{Failure, StartError};
use odyn_net::init::on_exit;
use odyn_net::init::on_exit::OnExit;
use odyn_net::settings::{Asked, Refused};
use odyn_net::{doctor, run, settings, simulate};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    odyn_process::disable_huge_pages();
    let (code, on_exit) = odyn_net();
    // Nothing comes after it, so everything is drained and written.
    on_exit::end(on_exit);
    code
}

/// Does what is asked for; with what then becomes of the machine.
fn odyn_net() -> (ExitCode, OnExit) {
    let cli = match settings::load(std::env::args_os()) {
        Ok(Asked::Run(cli)) => cli,
        Ok(Asked::Print(text)) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            return (ExitCode::SUCCESS, OnExit::Exit);
        }
        Err(Refused::Usage(error)) => {
            // What cannot be printed has nobody to read it.
            let _ = error.print();
            return match error.use_stderr() {
                true => (Failure::Usage.into(), OnExit::Auto),
                false => (ExitCode::SUCCESS, OnExit::Exit),
            };
        }
        Err(Refused::Start(error)) => return (failed(&error), OnExit::Auto),
    };
    let (result, on_exit) = match cli.command {
        Command::Run(args) => {
            let on_exit = args.on_exit;
            (run::run(args), on_exit)
        }
        Command::Simulate(args) => (simulate::host(args), OnExit::Exit),
        Command::SimulatedGuest(args) => (simulate::guest(args), OnExit::Exit),
        Command::Doctor(args) => (doctor::run(&args), OnExit::Exit),
        Command::DoctorTrial => {
            doctor::trial::child();
            (Ok(ExitCode::SUCCESS), OnExit::Exit)
        }
        Command::Program(launch) => (Err(launch.become_program()), OnExit::Exit),
    };
    (result.unwrap_or_else(|error| failed(&error)), on_exit)
}

fn failed(error: &StartError) -> ExitCode {
    if !error.told {
        eprintln!("odyn-net: {error}");
    }
    error.failure.into()
}
