//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Checks odyn policy files, explains their decisions, and verifies attestation documents.
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
    /// Attestation documents of Nitro enclaves.
    #[command(subcommand)]
    Attest(AttestCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AttestCommand {
    Verify(VerifyArgs),
}

/// Verify an attestation document: signature, chain of certificates, time, and what is expected of
/// it. Prints what it says.
///
/// Exit code: 0 valid and as expected, 1 not, 2 the question could not be answered.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The document, as the module makes it or in base64; `-` is the standard input.
    #[arg(value_name = "DOC")]
    pub(crate) document: PathBuf,
    /// The measurement of the image, in hexadecimal.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr0: Option<String>,
    /// Of kernel and boot.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr1: Option<String>,
    /// Of the application.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr2: Option<String>,
    /// Of the parent's IAM role.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr3: Option<String>,
    /// Of the parent's instance id.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr4: Option<String>,
    /// Of the certificate that signed the image.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr8: Option<String>,
    /// Measurements as `nitro-cli build-enclave` prints them.
    #[arg(long, value_name = "FILE")]
    pub(crate) expect: Option<PathBuf>,
    /// Who is trusted: `aws`, `simulated`, or a certificate in PEM or DER.
    #[arg(long, value_name = "aws|simulated|FILE", default_value = "aws")]
    pub(crate) root: String,
    /// The nonce that must be in it, in hexadecimal, else in base64.
    #[arg(long, value_name = "NONCE")]
    pub(crate) nonce: Option<String>,
    /// The time at which it must be valid, such as 2026-11-25T21:00:00Z [default: now].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    pub(crate) at: Option<std::time::SystemTime>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
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
