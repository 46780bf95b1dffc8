//! `enclaver-outer`: the host half as a program.

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
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use odyn_settings::Error as SettingsError;
use tracing::warn;

use crate::exit::DaemonError;
use crate::settings::{Invocation, LoadedSettings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Of huge pages, a program that mostly waits fills one in ten. The allocator, which begins before this, is
    // built not to ask for them; a kernel that gives them unasked is told here.
    let _ = prctl::set_thp_disable(true);
    let result = settings::load(std::env::args_os()).and_then(|asked| match asked {
        Invocation::Run(configured) => run(*configured),
        Invocation::Status(args) => status(&args),
        Invocation::Print(text) => print(&text),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(DaemonError::Settings(SettingsError::Usage(error))) => {
            // What cannot be printed has nobody to read it.
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
    // Before anything else is opened.
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
        .block_on(admin::status(args))
        .map_err(DaemonError::Status)
}

fn print(text: &str) -> Result<(), DaemonError> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(DaemonError::Runtime)
}

/// Raises the limit of open files to what is allowed, and says what it is now: each flow takes
/// one.
fn raise_file_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            warn!(%error, soft, hard, "can't raise the limit of open files");
            soft
        }
    }
}
