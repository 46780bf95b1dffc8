//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Checks odyn policy files, explains their decisions, and verifies attestation documents.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct PolicyctlCli {
    #[command(subcommand)]
    pub(crate) command: PolicyctlCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyctlCommand {
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

/// Verify an attestation document: signature, certificate chain, time and expected values. Prints
/// its content.
///
/// Exit code: 0 valid and as expected, 1 not, 2 could not be checked.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The document, in binary or in base64; `-` is the standard input.
    #[arg(value_name = "DOC")]
    pub(crate) document: PathBuf,
    /// Measurement of the image, in hexadecimal.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr0: Option<String>,
    /// Measurement of kernel and boot.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr1: Option<String>,
    /// Measurement of the application.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr2: Option<String>,
    /// Measurement of the parent instance's IAM role.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr3: Option<String>,
    /// Measurement of the parent instance's ID.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr4: Option<String>,
    /// Measurement of the certificate that signed the image.
    #[arg(long, value_name = "HEX")]
    pub(crate) pcr8: Option<String>,
    /// File with measurements as `nitro-cli build-enclave` prints them.
    #[arg(long, value_name = "FILE")]
    pub(crate) expect: Option<PathBuf>,
    /// Trusted root: `aws`, `simulated`, or a certificate file in PEM or DER.
    #[arg(long, value_name = "aws|simulated|FILE", default_value = "aws")]
    pub(crate) root: String,
    /// The nonce that the document must have, in hexadecimal or base64.
    #[arg(long, value_name = "NONCE")]
    pub(crate) nonce: Option<String>,
    /// The time at which the document must be valid, such as 2026-11-25T21:00:00Z [default: now].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    pub(crate) at: Option<std::time::SystemTime>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check policy files for errors and likely mistakes.
///
/// Exit code: 0 no errors (there may be warnings), 1 errors (with --deny-warnings also warnings), 2
/// a file could not be read.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Format of the findings.
    #[arg(long, value_enum, default_value_t = OutputFormat::Human)]
    pub(crate) format: OutputFormat,
    /// Exit with 1 for warnings, too.
    #[arg(long)]
    pub(crate) deny_warnings: bool,
    /// Also show notes, such as ignored keys of other tools, or a policy without allow rules.
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Directory with the unpacked image of the guest. The TLS files that policies name are checked
    /// below it; symbolic links lead where they would in the guest. Without this option, these
    /// files are not checked.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Policy files; `-` is the standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Text with the source line and a caret.
    Human,
    /// A JSON array of findings.
    Json,
    /// SARIF 2.1.0 for code scanners.
    Sarif,
}

/// Explain what a policy decides about a flow.
///
/// Exit code: 0 allowed, 1 denied, 2 could not be decided.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Policy file; `-` is the standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Destination of the flow: `NAME:PORT`, `ADDRESS:PORT`, `[IPV6]:PORT` or `host:PORT`, followed
    /// by `/tcp` or `/udp` (default: TCP).
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) to: String,
    /// An address of the name; can be given several times.
    #[arg(long, value_name = "IP")]
    pub(crate) resolved: Vec<IpAddr>,
}
