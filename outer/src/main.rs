//! `enclaver-outer`: the host half as a program.

#![forbid(unsafe_code)]

mod admin;
mod chain;
mod cli;
mod configure;
mod exit;
mod logging;
mod notify;
mod reload;
mod service;
mod status;

use std::io::Write;
use std::process::ExitCode;

use enclaver_outer::ingress::Inherited;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use odyn_settings::Error as SettingsError;
use tracing::warn;

use crate::configure::{Asked, Configured};
use crate::exit::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Of huge pages, a program that mostly waits fills one in ten. The allocator, which begins before this, is
    // built not to ask for them; a kernel that gives them unasked is told here.
    let _ = prctl::set_thp_disable(true);
    let result = configure::load(std::env::args_os()).and_then(|asked| match asked {
        Asked::Run(configured) => run(*configured),
        Asked::Status(args) => status(&args),
        Asked::Print(text) => print(&text),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Settings(SettingsError::Usage(error))) => {
            // What cannot be printed has nobody to read it.
            let _ = error.print();
            match error.use_stderr() {
                true => Failure::Settings(SettingsError::Usage(error)).code().into(),
                false => ExitCode::SUCCESS,
            }
        }
        Err(failure) => {
            eprintln!("enclaver-outer: {failure}");
            failure.code().into()
        }
    }
}

fn run(configured: Configured) -> Result<(), Failure> {
    let log = logging::to_stderr(&configured.args.log_level);
    // Before anything else is opened.
    let names = std::env::var("LISTEN_FDNAMES").ok();
    let inherited = Inherited::take(names.as_deref());
    let files = raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(service::serve(configured, files, log, inherited))
}

fn status(args: &cli::Status) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime
        .block_on(admin::status(args))
        .map_err(Failure::Status)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::Runtime)
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
