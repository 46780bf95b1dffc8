//! `enclaver doctor`: checks a kernel for what odyn-net needs, and advises on the rest.
//!
//! [`catalogue`] lists the checks. Findings come from the running kernel (`live`), from a [trial]
//! in a temporary namespace, or from a kernel's configuration (`kernel_config`). [`diagnosis`]
//! concludes, and [`report`] prints.

pub mod catalogue;
pub mod check;
pub mod diagnosis;
mod kernel_config;
mod live;
pub mod report;
mod rules;
pub mod trial;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use nix::libc::VMADDR_CID_LOCAL;
use odyn_proto::Endpoint;

pub use self::kernel_config::KernelConfigError;
use crate::args::Doctor;
use crate::doctor::diagnosis::{Link, Purpose, diagnose};
use crate::doctor::report::Report;
use crate::error::CliError;

/// The exit code when `odyn-net run` would not work.
const NOT_READY: u8 = 1;

/// Runs the checks and prints the report. The exit code says whether `odyn-net run` would work.
///
/// # Errors
/// The file of `--kernel-config` cannot be read, or is no configuration.
pub fn run(args: &Doctor) -> Result<ExitCode, CliError> {
    let report = match &args.kernel_config {
        Some(path) => of_file(path, args)?,
        None => of_this_machine(args),
    };
    let mut text = if args.json {
        serde_json::to_string_pretty(&report)?
    } else {
        report.to_string()
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    // A reader that closed the pipe needs no more.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(if report.ready() {
        ExitCode::SUCCESS
    } else {
        NOT_READY.into()
    })
}

fn of_this_machine(args: &Doctor) -> Report {
    let live = live::look();
    let diagnosis = diagnose(&live.findings, purpose(args, Link::Other));
    let uname = nix::sys::utsname::uname();
    let kernel = uname.map_or_else(
        |_| "Linux".into(),
        |name| {
            format!(
                "Linux {} {}",
                name.release().to_string_lossy(),
                name.machine().to_string_lossy()
            )
        },
    );
    Report::new(
        kernel,
        report::RUNNING.into(),
        live.note,
        &live.findings,
        diagnosis,
    )
}

fn of_file(path: &Path, args: &Doctor) -> Result<Report, CliError> {
    let config = kernel_config::read(path)?;
    let findings = kernel_config::evaluate(&config);
    // An image is for a virtual machine, whose link is vsock unless `--link` says otherwise.
    let diagnosis = diagnose(&findings, purpose(args, Link::Vsock));
    Ok(Report::new(
        kernel_config::name_of(&config),
        path.display().to_string(),
        "Judged by its configuration; rights and devices are the machine's, which runs it.".into(),
        &findings,
        diagnosis,
    ))
}

fn purpose(args: &Doctor, without_word: Link) -> Purpose {
    let link = match &args.link {
        None => without_word,
        Some(Endpoint::Vsock {
            cid: VMADDR_CID_LOCAL,
            ..
        }) => Link::VsockLoopback,
        Some(Endpoint::Vsock { .. }) => Link::Vsock,
        Some(_) => Link::Other,
    };
    Purpose {
        capture: args.capture,
        link,
    }
}
