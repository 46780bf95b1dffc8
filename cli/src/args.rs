//! The command line of `enclaver`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use enclaver_outer::{Bind, Mapping, MappingError};
use odyn_net::capture::Method;
use odyn_net::cli::{Common, Run};
use odyn_net::supervisor::launch::{APP_COMMAND, Launch};
use odyn_proto::Endpoint;

/// Hidden command of the guest that `simulate` starts.
pub const GUEST_COMMAND: &str = "__simulated-guest";
/// Hidden command of the process that tries things for `doctor`.
pub const TRIAL_COMMAND: &str = "__doctor-trial";

/// Tools for people who write policies and build enclave images.
///
/// `simulate` runs an app under a policy on this machine. `doctor` says what a kernel lacks.
/// In the guest itself the app is run by `odyn-net run`, on the host runs `enclaver-outer`.
#[derive(Debug, Parser)]
#[command(
    name = "enclaver",
    version,
    arg_required_else_help = true,
    args_override_self = true,
    after_help = "Examples:
  enclaver simulate --policy policy.yaml -- curl https://example.com
  enclaver simulate --policy policy.yaml --audit - -- ./server
  sudo enclaver doctor
  enclaver doctor --kernel-config /boot/config-6.1.0 --json"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an app under a policy on this machine: no root, no enclave, no second process to start.
    ///
    /// Makes a user, a network and a mount namespace for the app, and carries its traffic to the
    /// caller's network. Where the policy has `ingress`, clients on this machine reach the app at
    /// 127.0.0.1 and the `listen_port`, or where --ingress says.
    ///
    /// Settings and exit codes are those of `odyn-net run`; 69: an address for clients is taken or
    /// not allowed. This is no security boundary: it is for trying a policy.
    #[command(after_help = "Examples:
  enclaver simulate --policy policy.yaml -- curl https://example.com
  enclaver simulate --policy policy.yaml --audit audit.jsonl -- python3 app.py
  enclaver simulate --policy policy.yaml --ingress 443=127.0.0.1:8443 -- ./server")]
    Simulate(Simulate),
    /// Say which of the things that odyn-net needs this kernel has, or one with a given
    /// configuration.
    ///
    /// Changes nothing: it tries rules and routes in a network namespace that it throws away (the
    /// kernel may load modules for them, as it would for `odyn-net run`). Run it as root to learn
    /// most.
    ///
    /// Exit codes: 0: `odyn-net run` would work, 1: something required is missing or unknown,
    /// 64: wrong usage, 65: the file is no kernel configuration, 66: the file cannot be read.
    #[command(after_help = "Examples:
  sudo enclaver doctor
  sudo enclaver doctor --link vsock://3:7000 --json
  zcat /proc/config.gz | enclaver doctor --kernel-config -")]
    Doctor(Doctor),
    /// Internal: gives up all rights and becomes the app.
    #[command(name = APP_COMMAND, hide = true)]
    App(Launch),
    /// Internal: the guest of `simulate`.
    #[command(name = GUEST_COMMAND, hide = true)]
    SimulatedGuest(Run),
    /// Internal: tries rules and filters for `doctor`, and prints the findings.
    #[command(name = TRIAL_COMMAND, hide = true)]
    DoctorTrial,
}

/// Arguments of `simulate`.
#[derive(Debug, Clone, Args)]
pub struct Simulate {
    /// Resolve names at this server instead of the system's resolver.
    #[arg(long, value_name = "IP[:PORT]", value_parser = resolver)]
    pub resolver: Option<SocketAddr>,
    /// Listen at ADDRESS:PORT for clients of the policy's PORT; may be repeated
    /// [default: 127.0.0.1 and that port, for each port of the policy's `ingress`].
    #[arg(
        long,
        env = "ODYN_INGRESS",
        value_name = "PORT=ADDRESS:PORT",
        value_delimiter = ',',
        value_parser = mapping
    )]
    pub ingress: Vec<Mapping>,
    /// The arguments that `odyn-net run` has, too.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct Doctor {
    /// Settings file of `odyn-net run`; doctor reads `link` and `capture`.
    #[arg(long, env = "ODYN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check this kernel configuration (.config; `-` is standard input) instead of the running
    /// kernel. doctor then assumes a vsock link unless --link says otherwise.
    #[arg(long, value_name = "FILE|-")]
    pub kernel_config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The link that `odyn-net run` will use: a vsock link makes vsock required.
    #[arg(long, env = "ODYN_LINK", value_name = "URL")]
    pub link: Option<Endpoint>,
    /// The capture that `odyn-net run` will use.
    #[arg(
        long,
        env = "ODYN_CAPTURE",
        value_name = "CAPTURE",
        value_enum,
        default_value = "auto"
    )]
    pub capture: Method,
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
        .map_err(|_| format!("{text:?} is no address such as 192.0.2.53 or [2001:db8::53]:5353"))
}

/// Parses a mapping for one guest, without the forms for several guests and service managers.
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
    use clap::CommandFactory;
    use odyn_net::cli::SIMULATE_KEYS;

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
        let command = cli.find_subcommand("simulate").expect("a command");
        let settings = command
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .filter(|flag| !["help", "version", "config", "print-config"].contains(flag));
        for flag in settings {
            let row = format!("| `{}` |", flag.replace('-', "_"));
            assert!(text.contains(&row), "docs/operations.md has no {row}");
        }
    }

    /// The guest ignores these keys in the settings file, which both executables read.
    #[test]
    fn the_guest_knows_the_keys_that_only_simulate_has() {
        let cli = Cli::command();
        let keys = |name| {
            let command = cli.find_subcommand(name).expect("a command");
            let flags = command.get_arguments().filter_map(|arg| arg.get_long());
            flags.collect::<std::collections::BTreeSet<&str>>()
        };
        let only: Vec<&str> = keys("simulate")
            .difference(&keys(GUEST_COMMAND))
            .copied()
            .collect();
        assert_eq!(only, SIMULATE_KEYS);
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
