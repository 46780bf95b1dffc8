//! The `odyn-net` executable.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use odyn_net::cli::{Cli, Command};
use odyn_net::exit::Failure;
use odyn_net::init::on_exit;
use odyn_net::init::on_exit::OnExit;
use odyn_net::run;
use odyn_net::settings::{LoadError, Request, load};
use odyn_net::start_error::StartError;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    odyn_process::disable_huge_pages();
    let (code, on_exit) = odyn_net();
    // This comes last: every flow is drained and every record written.
    on_exit::end(on_exit);
    code
}

/// Runs the command. Also returns how the machine is to end afterwards.
fn odyn_net() -> (ExitCode, OnExit) {
    let cli = match load::<Cli>(std::env::args_os()) {
        Ok(Request::Run(cli)) => cli,
        Ok(Request::Print(text)) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            return (ExitCode::SUCCESS, OnExit::Exit);
        }
        Err(LoadError::Usage(error)) => return usage(&error),
        Err(LoadError::Start(error)) => return (failed(&error), OnExit::Auto),
    };
    let (result, on_exit) = match cli.command {
        Command::Run(args) => {
            let on_exit = args.on_exit;
            (run::run(args), on_exit)
        }
        Command::App(launch) => (Err(launch.become_app().into()), OnExit::Exit),
    };
    (result.unwrap_or_else(|error| failed(&error)), on_exit)
}

/// Prints the error for a wrong command line, or the help.
fn usage(error: &clap::Error) -> (ExitCode, OnExit) {
    if let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand)
        && ["simulate", "doctor"].contains(&command.as_str())
    {
        eprintln!(
            "odyn-net: `odyn-net {command}` is `enclaver {command}` now, with the same arguments"
        );
        return (Failure::Usage.into(), OnExit::Auto);
    }
    // Standard error may be closed; the exit code reports the failure, too.
    let _ = error.print();
    match error.use_stderr() {
        true => (Failure::Usage.into(), OnExit::Auto),
        false => (ExitCode::SUCCESS, OnExit::Exit),
    }
}

fn failed(error: &StartError) -> ExitCode {
    eprintln!("odyn-net: {error}");
    error.failure().into()
}
