//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use enclaver_outer::{Bind, Mapping, MappingError};
use odyn_link::LaneMode;
use odyn_proto::Endpoint;
use odyn_settings::PrintConfig;

use crate::attestation::Nsm;
use crate::capture::Method;
use crate::init::Init;
use crate::init::on_exit::OnExit;
use crate::supervisor::launch::Launch;
use crate::telemetry::StdioMode;

/// The settings file that is used when it exists and no other is named.
pub const DEFAULT_FILE: &str = "/etc/odyn/odyn-net.yaml";
/// Hidden command of the process that becomes the program.
pub const PROGRAM_COMMAND: &str = "__program";
/// Hidden command of the guest that `simulate` starts.
pub const GUEST_COMMAND: &str = "__simulated-guest";
/// Hidden command of the process that tries things for `doctor`.
pub const DOCTOR_TRIAL_COMMAND: &str = "__doctor-trial";

/// Runs a program whose network is exactly what a policy allows.
///
/// The program needs no proxy setting and no change: its TCP, UDP and DNS are captured by the
/// kernel, judged by the policy, and carried to enclaver-outer on the host.
#[derive(Debug, Parser)]
#[command(
    name = "odyn-net",
    version,
    arg_required_else_help = true,
    args_override_self = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program in this guest (enclave, microVM or network namespace).
    ///
    /// Each setting comes from its flag, else from its environment variable, else from the settings
    /// file, else from the policy or its default.
    ///
    /// Takes over the network namespace it is started in. Needs CAP_NET_ADMIN and CAP_NET_RAW;
    /// the program gets no capability at all. The exit code is the program's (128+N when signal N
    /// killed it); 64: usage, 71: the network cannot be captured, 72: a file that the policy names
    /// is missing or wrong, 73: a file cannot be written, 78: the policy or the settings file is wrong, 126/127: the program cannot be run or found.
    Run(Run),
    /// Try a policy on this machine: no root, no enclave, no second process.
    ///
    /// Makes a user, a network and a mount namespace for the program and carries its traffic to
    /// the network of the caller. Where the policy has `ingress`, clients reach the program on this
    /// machine at 127.0.0.1 and the `listen_port`, or where --ingress says. Exit codes as in `run`;
    /// 69: nobody can listen there.
    Simulate(Simulate),
    /// Say what this kernel, or one with a given configuration, has of what odyn-net needs.
    ///
    /// Changes nothing: rules and routes are tried in a network namespace that is thrown away (the
    /// kernel may load modules for it, as it would for `run`). Knows most as root. Exit codes: 0:
    /// `run` would work, 1: something required is missing or unknown, 64: usage, 65: the file is no
    /// kernel configuration, 66: it cannot be read.
    Doctor(Doctor),
    /// Internal: gives up all rights and becomes the program.
    #[command(name = PROGRAM_COMMAND, hide = true)]
    Program(Launch),
    /// Internal: the guest of `simulate`.
    #[command(name = GUEST_COMMAND, hide = true)]
    SimulatedGuest(Run),
    /// Internal: tries rules and filters for `doctor`, and prints what came of it.
    #[command(name = DOCTOR_TRIAL_COMMAND, hide = true)]
    DoctorTrial,
}

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct Doctor {
    /// Settings file, as for `run`: `link` and `capture` are of interest here.
    #[arg(long, env = "ODYN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Judge this kernel configuration (.config; `-` is standard input) instead of the running
    /// kernel. A vsock link is taken for granted unless --link says otherwise.
    #[arg(long, value_name = "FILE|-")]
    pub kernel_config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The link that is meant: a vsock link makes vsock required.
    #[arg(long, env = "ODYN_LINK", value_name = "URL")]
    pub link: Option<Endpoint>,
    /// The capture that is meant.
    #[arg(
        long,
        env = "ODYN_CAPTURE",
        value_name = "CAPTURE",
        value_enum,
        default_value = "auto"
    )]
    pub capture: Method,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Where the host half listens: vsock://CID:PORT, unix:///PATH or hybrid:///PATH:PORT.
    #[arg(long, env = "ODYN_LINK", value_name = "URL")]
    pub link: Endpoint,
    /// Mount what is missing (/proc, /sys, /dev, ...) and write /etc/hosts when it is missing;
    /// `auto`: as the first process of a PID namespace. /etc/resolv.conf is written when it is
    /// missing or empty, and random numbers are seeded from NSM, unless this is `no`.
    #[arg(
        long,
        env = "ODYN_INIT",
        value_enum,
        default_value_t,
        value_name = "WHEN"
    )]
    pub init: Init,
    /// What to do at the end; `auto`: power off as the first process of a machine, else exit.
    #[arg(
        long,
        env = "ODYN_ON_EXIT",
        value_enum,
        default_value_t,
        value_name = "ACTION"
    )]
    pub on_exit: OnExit,
    /// Where the program's standard output and error go: to the host half as streams of their
    /// own, and odyn-net's own log with them, or to where odyn-net's go [default: host when
    /// odyn-net is the first process (PID 1), else inherit].
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
    /// What `run` and `simulate` share.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `simulate`.
#[derive(Debug, Clone, Args)]
pub struct Simulate {
    /// Resolve names at this server instead of the system's resolver.
    #[arg(long, value_name = "IP[:PORT]", value_parser = resolver)]
    pub resolver: Option<SocketAddr>,
    /// Listen at ADDRESS:PORT for clients of the program on the policy's PORT; may be repeated
    /// [default: 127.0.0.1 and that port, for each port of the policy's `ingress`].
    #[arg(
        long,
        env = "ODYN_INGRESS",
        value_name = "PORT=ADDRESS:PORT",
        value_delimiter = ',',
        value_parser = mapping
    )]
    pub ingress: Vec<Mapping>,
    /// What `run` and `simulate` share.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of both.
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
    /// Run the program as this user, by name or number, optionally with a group.
    #[arg(long, env = "ODYN_USER", value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// How the program's traffic is captured: by nftables, by a TUN device, or by nftables where the
    /// kernel has it and a TUN device where not. TUN is for guests with no interface but lo.
    #[arg(long, env = "ODYN_CAPTURE", value_enum, default_value_t = Method::Auto, value_name = "METHOD")]
    pub capture: Method,
    /// Append one JSON line for each flow to this file; `-` is standard output.
    #[arg(long, env = "ODYN_AUDIT", value_name = "FILE|-")]
    pub audit: Option<PathBuf>,
    /// Write odyn-net's own log to this file; `-` is standard error. Without it there is none
    /// (but see --stdio host), so that the program's output stays the program's.
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
    /// How long open flows may take to finish after the program ended; the policy's
    /// shutdown.drain_timeout when absent.
    #[arg(long, env = "ODYN_DRAIN_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub drain_timeout: Option<Duration>,
    /// Which TCP flows get a connection of their own to the host half, where their bytes are
    /// spliced: those that prove to be bulk (auto), all (always), none (never).
    #[arg(long, env = "ODYN_LANES", default_value_t, value_name = "WHEN")]
    pub lanes: LaneMode,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| format!("{text:?} is no address such as 192.0.2.53 or [2001:db8::53]:5353"))
}

/// A mapping of the host half that makes sense with one guest and no service manager.
fn mapping(text: &str) -> Result<Mapping, String> {
    let mapping: Mapping = text
        .parse()
        .map_err(|error: MappingError| error.to_string())?;
    match (&mapping.guest, &mapping.bind) {
        (None, Bind::Address(_)) => Ok(mapping),
        (Some(guest), _) => Err(format!(
            "there is one guest only: expected PORT=ADDRESS:PORT without \"{guest}:\""
        )),
        (None, Bind::Named(_)) => Err("expected PORT=ADDRESS:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_in_the_documentation() {
        let text = include_str!("../../docs/operations.md");
        let (_, text) = text.split_once("### `odyn-net run`").expect("the section");
        for command in ["run", "simulate"] {
            let cli = Cli::command();
            let command = cli.find_subcommand(command).expect("a command");
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

    #[test]
    fn resolvers_have_a_default_port() {
        assert_eq!(resolver("192.0.2.1"), Ok("192.0.2.1:53".parse().unwrap()));
        assert_eq!(resolver("::1"), Ok("[::1]:53".parse().unwrap()));
        assert_eq!(resolver("[::1]:54"), Ok("[::1]:54".parse().unwrap()));
        assert!(resolver("dns.example").is_err());
    }

    #[test]
    fn clients_of_a_simulated_guest_come_in_at_an_address() {
        let address = "127.0.0.1:8443".parse().unwrap();
        let read = mapping("443=127.0.0.1:8443").unwrap();
        assert_eq!((read.port.get(), read.bind), (443, Bind::Address(address)));
        for (text, part) in [
            ("443", "expected [GUEST:]PORT="),
            ("shop:443=127.0.0.1:8443", "without \"shop:\""),
            ("443=fd:web", "expected PORT=ADDRESS:PORT"),
        ] {
            let error = mapping(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
