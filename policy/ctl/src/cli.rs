//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Checks odyn policy files and explains their decisions.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Check(CheckArgs),
    Explain(ExplainArgs),
}

/// Check policy files for errors and for what is probably not meant.
///
/// Exit code: 0 nothing found, 1 errors (with --deny-warnings also warnings), 2 a file could not
/// be read.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// How to print the findings.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(crate) format: Format,
    /// Exit with 1 for warnings as well.
    #[arg(long)]
    pub(crate) deny_warnings: bool,
    /// Also show notes: keys of other tools that are ignored, policies that allow nothing.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Where the guest's image was unpacked: the files that policies name (`tls`) are looked up
    /// below it, links included, and must be what odyn-net will need. Without it, they are not
    /// looked at; --verbose says so.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Policy files; `-` is the standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text with the source line and a caret.
    Human,
    /// A JSON array of findings.
    Json,
    /// SARIF 2.1.0, as code scanners read it.
    Sarif,
}

/// Say what a policy decides about a flow, and why.
///
/// Exit code: 0 allowed, 1 denied, 2 the question could not be answered.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Policy file; `-` is the standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Where the flow goes: `NAME:PORT`, `ADDRESS:PORT`, `[IPV6]:PORT` or `host:PORT`, with `/tcp`
    /// or `/udp` after it (TCP if not given).
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) to: String,
    /// An address to which the name resolves; can be given several times.
    #[arg(long, value_name = "IP")]
    pub(crate) resolved: Vec<IpAddr>,
}
