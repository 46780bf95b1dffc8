//! `enclaver-outer`: the host as a daemon, and its `status` command.

#![forbid(unsafe_code)]

mod admin;
mod aws_chain;
mod cli;
mod daemon;
mod exit;
mod logging;
mod notify;
mod reload;
mod settings;
mod status_line;

use std::io::Write;
use std::process::ExitCode;

use enclaver_outer::ingress::InheritedSockets;
use odyn_settings::SettingsError;
use tracing::warn;

use crate::exit::DaemonError;
use crate::settings::{Invocation, LoadedSettings};

/// The limit of open files that is assumed where it can't be raised.
const ASSUMED_FILE_LIMIT: u64 = 1024;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    odyn_process::disable_huge_pages();
    let result = settings::load(std::env::args_os()).and_then(|asked| match asked {
        Invocation::Run(configured) => run(*configured),
        Invocation::Status(args) => status(&args),
        Invocation::Print(text) => print(&text),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(DaemonError::Settings(SettingsError::Usage(error))) => {
            // Without an output there is no way to report that printing failed.
            let _ = error.print();
            match error.use_stderr() {
                true => DaemonError::Settings(SettingsError::Usage(error))
                    .code()
                    .into(),
                false => ExitCode::SUCCESS,
            }
        }
        Err(failure) => {
            eprintln!("enclaver-outer: {failure}");
            failure.code().into()
        }
    }
}

fn run(configured: LoadedSettings) -> Result<(), DaemonError> {
    let log = logging::to_stderr(&configured.args.log_level);
    // Before any other file is opened: LISTEN_FDS names descriptors by number.
    let names = std::env::var("LISTEN_FDNAMES").ok();
    let inherited = InheritedSockets::take(names.as_deref());
    let files = raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    runtime.block_on(daemon::serve(configured, files, log, inherited))
}

fn status(args: &cli::StatusArgs) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    runtime
        .block_on(admin::print_status(args))
        .map_err(DaemonError::Status)
}

fn print(text: &str) -> Result<(), DaemonError> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(DaemonError::Runtime)
}

/// Raises the limit of open files, and returns it: each flow takes one.
fn raise_file_limit() -> u64 {
    match odyn_process::raise_file_limit() {
        Ok(limit) => limit.now,
        Err(error) => {
            warn!(%error, "can't raise the limit of open files");
            ASSUMED_FILE_LIMIT
        }
    }
}
