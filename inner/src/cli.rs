//! The command line of `odyn-net`, and the arguments that `enclaver simulate` shares with it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use odyn_link::LaneMode;
use odyn_proto::Endpoint;
use odyn_settings::PrintConfig;

use crate::attestation::Nsm;
use crate::capture::Method;
use crate::init::Init;
use crate::init::on_exit::OnExit;
use crate::supervisor::launch::{APP_COMMAND, Launch};
use crate::telemetry::StdioMode;

/// The settings file that odyn-net reads when it exists and the caller names no other.
pub const DEFAULT_FILE: &str = "/etc/odyn/odyn-net.yaml";
/// Keys of the settings file that only `enclaver simulate` reads.
pub const SIMULATE_KEYS: &[&str] = &["ingress", "resolver"];

/// Runs an app whose network is exactly what a policy allows.
///
/// The app needs no proxy setting and no change. The kernel hands its TCP, UDP and DNS traffic to
/// odyn-net, odyn-net decides by the policy, and enclaver-outer on the host makes the connections.
#[derive(Debug, Parser)]
#[command(
    name = "odyn-net",
    version,
    arg_required_else_help = true,
    args_override_self = true,
    after_help = "To try a policy on this machine, or to see what a kernel lacks: enclaver simulate, enclaver doctor."
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an app in this guest (enclave, microVM or network namespace).
    ///
    /// Each setting comes from its flag, else its environment variable, else the settings file,
    /// else the policy or the default.
    ///
    /// odyn-net takes over the network namespace that it is started in, and needs CAP_NET_ADMIN and
    /// CAP_NET_RAW. The app gets no capability. The exit code is the app's (128+N when signal N
    /// killed it). Other codes: 64: wrong usage, 71: the network cannot be captured, or the kernel
    /// refused something else, 72: a file that the policy names is missing or wrong, 73: a file
    /// cannot be written, 78: the policy or the settings file is wrong, 126/127: the app cannot be
    /// run or found.
    Run(Run),
    /// Internal: gives up all rights and becomes the app.
    #[command(name = APP_COMMAND, hide = true)]
    App(Launch),
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Where the host listens: vsock://CID:PORT, unix:///PATH or hybrid:///PATH:PORT.
    #[arg(long, env = "ODYN_LINK", value_name = "URL")]
    pub link: Endpoint,
    /// Mount what is missing (/proc, /sys, /dev, ...) and write /etc/hosts when it is missing;
    /// `auto`: as the first process of a PID namespace. Unless this is `no`, odyn-net also writes
    /// /etc/resolv.conf when it is missing or empty, and seeds random numbers from NSM.
    #[arg(
        long,
        env = "ODYN_INIT",
        value_enum,
        default_value_t,
        value_name = "WHEN"
    )]
    pub init: Init,
    /// Action when odyn-net ends; `auto`: power off as the first process of a machine, else exit.
    #[arg(
        long,
        env = "ODYN_ON_EXIT",
        value_enum,
        default_value_t,
        value_name = "ACTION"
    )]
    pub on_exit: OnExit,
    /// Where the app's standard output and error go: `host` sends them to the host as streams of
    /// their own, with odyn-net's log beside them; `inherit` writes them where odyn-net's go
    /// [default: host when odyn-net is the first process (PID 1), else inherit].
    #[arg(long, env = "ODYN_STDIO", value_name = "MODE")]
    pub stdio: Option<StdioMode>,
    /// Where attestation documents come from: the Nitro Secure Module, if there is one, or a
    /// simulated one, whose documents prove nothing.
    #[arg(
        long,
        env = "ODYN_NSM",
        value_enum,
        default_value_t,
        value_name = "MODULE"
    )]
    pub nsm: Nsm,
    /// The arguments that `simulate` has, too.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `odyn-net run` and `enclaver simulate`.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Settings file: YAML with the long flags as keys, such as `drain_timeout: 30s`
    /// [default: /etc/odyn/odyn-net.yaml, if it exists].
    #[arg(long, env = "ODYN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// `--print-config`.
    #[command(flatten)]
    pub print: PrintConfig,
    /// The policy file.
    #[arg(long, env = "ODYN_POLICY", value_name = "FILE")]
    pub policy: PathBuf,
    /// Run the app as this user, by name or number, optionally with a group.
    #[arg(long, env = "ODYN_USER", value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// How the app's traffic is captured: by nftables, by a TUN device, or (`auto`) by nftables
    /// where the kernel has it and else by a TUN device. TUN is for guests with no interface but lo.
    #[arg(long, env = "ODYN_CAPTURE", value_enum, default_value_t = Method::Auto, value_name = "METHOD")]
    pub capture: Method,
    /// Append one JSON line for each flow to this file; `-` is standard output.
    #[arg(long, env = "ODYN_AUDIT", value_name = "FILE|-")]
    pub audit: Option<PathBuf>,
    /// Write odyn-net's log to this file; `-` is standard error. Without it odyn-net writes no log
    /// (but see --stdio host), so that standard error is the app's alone.
    #[arg(long, env = "ODYN_LOG", value_name = "FILE|-")]
    pub log: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a filter such as odyn_link=debug,info.
    #[arg(
        long,
        env = "ODYN_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,
    /// How long open flows may take to finish after the app ended
    /// [default: the policy's shutdown.drain_timeout].
    #[arg(long, env = "ODYN_DRAIN_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub drain_timeout: Option<Duration>,
    /// Which TCP flows get a lane, a connection of their own to the host: busy ones (auto), all
    /// (always), none (never). On the lane of a bulk flow the kernel moves the bytes (splice);
    /// the messages of an interactive flow are read and written.
    #[arg(long, env = "ODYN_LANES", default_value_t, value_name = "WHEN")]
    pub lanes: LaneMode,
    /// The app and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_in_the_documentation() {
        let text = include_str!("../../docs/operations.md");
        let (_, text) = text.split_once("### `odyn-net run`").expect("the section");
        let cli = Cli::command();
        let command = cli.find_subcommand("run").expect("a command");
        let settings = command
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .filter(|flag| !["help", "version", "config", "print-config"].contains(flag));
        for flag in settings {
            let row = format!("| `{}` |", flag.replace('-', "_"));
            assert!(text.contains(&row), "docs/operations.md has no {row}");
        }
    }
}
