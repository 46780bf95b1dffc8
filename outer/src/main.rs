//! `enclaver-outer`: the host half as a program.

#![forbid(unsafe_code)]

mod cli;
mod exit;

use std::{
    ffi::OsString,
    io::{IsTerminal, Write},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches};
use enclaver_outer::{Limits, Outer, resolver::SystemResolver};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use odyn_link::{ListenOptions, Listener};
use odyn_settings::{Error as SettingsError, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    cli::{Cli, Command, DEFAULT_FILE, Run},
    exit::Failure,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// File descriptors that are not for flows: standard streams, listeners, connections of guests,
/// the resolver's sockets.
const OTHER_FILES: u64 = 256;

fn main() -> ExitCode {
    let result = configure(std::env::args_os()).and_then(|asked| match asked {
        Asked::Run(args) => run(*args),
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

/// What the command line asks for.
enum Asked {
    Run(Box<Run>),
    Print(String),
}

fn configure(args: impl IntoIterator<Item = OsString>) -> Result<Asked, Failure> {
    let loaded = Settings::new(Cli::command(), DEFAULT_FILE)
        .load(args)
        .map_err(Failure::Settings)?;
    if let Some(format) = loaded.print {
        return Ok(Asked::Print(loaded.report.render(format)));
    }
    let cli = Cli::from_arg_matches(&loaded.matches)
        .map_err(|error| Failure::Settings(SettingsError::Usage(error)))?;
    let Command::Run(args) = cli.command;
    Ok(Asked::Run(Box::new(args)))
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::Runtime)
}

fn run(args: Run) -> Result<(), Failure> {
    log_to_stderr(&args.log_level);
    let files = raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(serve(args, files))
}

async fn serve(args: Run, files: u64) -> Result<(), Failure> {
    let resolver = if args.resolver.is_empty() {
        SystemResolver::system()
    } else {
        SystemResolver::fixed(args.resolver)
    };
    let most = usize::try_from(files.saturating_sub(OTHER_FILES))
        .unwrap_or(usize::MAX)
        .max(16);
    let outer = Outer::builder()
        .limits(Limits::default().allow(args.allow).deny(args.deny))
        .connect_timeout(args.connect_timeout)
        .drain_timeout(args.drain_timeout)
        .max_flows(args.max_flows.unwrap_or(most))
        .build(resolver);

    // Before anyone can connect: a signal that comes now is not lost.
    let terminate = signal(SignalKind::terminate()).map_err(Failure::Runtime)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
    let mut options = ListenOptions::default();
    options.mode = args.socket_mode;
    let listeners = args
        .listen
        .iter()
        .map(|endpoint| Listener::bind(endpoint, options))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::Listen)?;

    let shutdown = CancellationToken::new();
    let running = outer.run(listeners, shutdown.clone());
    tokio::pin!(running);
    let (mut terminate, mut interrupt) = (terminate, interrupt);
    let summary = tokio::select! {
        summary = &mut running => summary,
        name = stop_signal(&mut terminate, &mut interrupt) => {
            info!(signal = name, limit = ?args.drain_timeout, "draining");
            shutdown.cancel();
            tokio::select! {
                summary = &mut running => summary,
                name = stop_signal(&mut terminate, &mut interrupt) => {
                    warn!(signal = name, "told to stop again: not draining any more");
                    return Ok(());
                }
            }
        }
    };
    if summary.cut > 0 {
        warn!(flows = summary.cut, "flows were cut");
    }
    info!("stopped");
    Ok(())
}

async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

fn log_to_stderr(level: &str) {
    // h2 has an event for each frame, which is nobody's level.
    let filter = format!("{level},h2=warn,hickory_proto=warn");
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
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
