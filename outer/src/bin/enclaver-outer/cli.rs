//! The command line of `enclaver-outer`.

use std::net::SocketAddr;
use std::num::{NonZeroU32, ParseIntError};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use enclaver_outer::{GuestLogs, Mapping, ProxyFrom};
use ipnet::IpNet;
use odyn_link::LaneMode;
use odyn_proto::{Endpoint, KmsEndpoint};
use odyn_settings::PrintConfig;

/// Where `enclaver-outer status` looks, unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/enclaver-outer/control.sock";

/// The settings file that is used when it exists and no other is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/enclaver-outer/outer.yaml";

/// The host of odyn: gives guests the network access that their policies allow.
#[derive(Debug, Parser)]
#[command(name = "enclaver-outer", version, propagate_version = true)]
pub(crate) struct OuterCli {
    #[command(subcommand)]
    pub(crate) command: OuterCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OuterCommand {
    /// Serve guests until SIGTERM or SIGINT.
    ///
    /// Each setting comes from its flag, else from its environment variable, else from the settings
    /// file, else from its default. Exit codes: 0: stopped by a signal, 64: the command line or the
    /// environment is wrong, 69: another process listens there, 71: the system refuses, 73: the
    /// directory for guests' logs can't be written, 78: the settings file is wrong.
    Run(Box<RunArgs>),
    /// Show the state of all guests. Requires `enclaver-outer run --control`.
    ///
    /// Exit codes: 0: status printed, 64: the command line is wrong, 69: no enclaver-outer answers,
    /// or it stopped while it was watched, 73: the status can't be printed, 78: the settings file is
    /// wrong.
    Status(StatusArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Settings file, for its key `control` [default: /etc/enclaver-outer/outer.yaml, if it
    /// exists].
    #[arg(long, value_name = "FILE", env = "OUTER_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// The control socket of `enclaver-outer run`.
    #[arg(
        long,
        value_name = "PATH",
        env = "OUTER_CONTROL",
        default_value = DEFAULT_SOCKET
    )]
    pub(crate) control: PathBuf,

    /// Print JSON: one object on one line.
    #[arg(long)]
    pub(crate) json: bool,

    /// Keep running, and print the status again whenever it changes.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Settings file: YAML with the long flags as keys, such as `drain_timeout: 30s`
    /// [default: /etc/enclaver-outer/outer.yaml, if it exists].
    #[arg(long, value_name = "FILE", env = "OUTER_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) print: PrintConfig,

    /// Where to listen for guests: vsock://any:PORT, unix:///path or hybrid:///path:PORT.
    #[arg(
        long,
        value_name = "URL",
        required = true,
        env = "OUTER_LISTEN",
        value_delimiter = ','
    )]
    pub(crate) listen: Vec<Endpoint>,

    /// Ask this resolver instead of the system's; may be repeated.
    #[arg(
        long,
        value_name = "IP[:PORT]",
        env = "OUTER_RESOLVER",
        value_delimiter = ',',
        value_parser = resolver
    )]
    pub(crate) resolver: Vec<std::net::SocketAddr>,

    /// Let guests reach only these addresses; may be repeated.
    #[arg(long, value_name = "CIDR", env = "OUTER_ALLOW", value_delimiter = ',', value_parser = net)]
    pub(crate) allow: Vec<IpNet>,

    /// Let no guest reach these addresses, whatever is allowed; may be repeated.
    #[arg(long, value_name = "CIDR", env = "OUTER_DENY", value_delimiter = ',', value_parser = net)]
    pub(crate) deny: Vec<IpNet>,

    /// Listen at ADDRESS:PORT for clients of a guest whose policy has PORT as an ingress port; may
    /// be repeated. GUEST is the name that the guest gives itself, or cid=N; without it, the first
    /// guest with this port gets the clients. An IPv6 address takes IPv6 only. fd:NAME in place of
    /// the address is a socket of the service manager (FileDescriptorName=). A socket of the service
    /// manager with the same address is used, too.
    #[arg(
        long,
        value_name = "[GUEST:]PORT=ADDRESS:PORT",
        env = "OUTER_INGRESS",
        value_delimiter = ','
    )]
    pub(crate) ingress: Vec<Mapping>,

    /// Whether guests may connect to AWS KMS and get the credentials of this machine (its instance
    /// role, or what else the AWS SDKs find). Their policies need no rule for it.
    #[arg(
        long,
        value_name = "allow|deny",
        env = "OUTER_KMS",
        value_enum,
        default_value_t
    )]
    pub(crate) kms: Permission,

    /// Treat this name as an endpoint of KMS too, beside those of AWS; may be repeated.
    #[arg(
        long,
        value_name = "NAME[:PORT]",
        env = "OUTER_KMS_ENDPOINT",
        value_delimiter = ',',
        value_parser = kms_endpoint
    )]
    pub(crate) kms_endpoint: Vec<KmsEndpoint>,

    /// Treat these addresses as load balancers: each connection must begin with a PROXY protocol
    /// header (version 1 or 2) naming the real client; with PORT= only at the listener with that
    /// port. May be repeated.
    #[arg(
        long,
        value_name = "[PORT=]CIDR",
        env = "OUTER_PROXY_FROM",
        value_delimiter = ','
    )]
    pub(crate) proxy_from: Vec<ProxyFrom>,

    /// Most clients at once of one listener; the newest is reset [default: no limit but
    /// --max-flows].
    #[arg(long, value_name = "N", env = "OUTER_MAX_CLIENTS")]
    pub(crate) max_clients: Option<usize>,

    /// Most clients at once of one listener from one address, or one /64 of IPv6 [default: no
    /// limit].
    #[arg(long, value_name = "N", env = "OUTER_MAX_CLIENTS_PER_SOURCE")]
    pub(crate) max_clients_per_source: Option<usize>,

    /// Most new clients of one listener in one second [default: no limit].
    #[arg(long, value_name = "N", env = "OUTER_CLIENT_RATE")]
    pub(crate) client_rate: Option<NonZeroU32>,

    /// Longest wait for a client's first byte; 0s: no limit.
    #[arg(
        long,
        value_name = "TIME",
        env = "OUTER_FIRST_BYTE_TIMEOUT",
        default_value = "60s",
        value_parser = humantime::parse_duration
    )]
    pub(crate) first_byte_timeout: Duration,

    /// Longest silence of a client's connection in both directions; 0s: no limit.
    #[arg(
        long,
        value_name = "TIME",
        env = "OUTER_CLIENT_IDLE_TIMEOUT",
        default_value = "0s",
        value_parser = humantime::parse_duration
    )]
    pub(crate) client_idle_timeout: Duration,

    /// Answer `GET /ready` over HTTP at this address: 200 if every listener for clients reaches a
    /// guest, else 503 [default: none].
    #[arg(long, value_name = "ADDRESS:PORT", env = "OUTER_READY_LISTEN")]
    pub(crate) ready_listen: Option<SocketAddr>,

    /// Most flows at once, of all guests together [default: what the file descriptors allow].
    #[arg(long, value_name = "N", env = "OUTER_MAX_FLOWS")]
    pub(crate) max_flows: Option<usize>,

    /// Whether TCP flows may get lanes: connections of their own where bytes are spliced. The guest
    /// asks for lanes; auto and always grant them, never refuses them.
    #[arg(
        long,
        value_name = "auto|always|never",
        env = "OUTER_LANES",
        default_value_t
    )]
    pub(crate) lanes: LaneMode,

    /// Longest wait for a destination to answer.
    #[arg(
        long,
        value_name = "TIME",
        env = "OUTER_CONNECT_TIMEOUT",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub(crate) connect_timeout: Duration,

    /// How long open flows may go on after the signal to stop.
    #[arg(
        long,
        value_name = "TIME",
        env = "OUTER_DRAIN_TIMEOUT",
        default_value = "30s",
        value_parser = humantime::parse_duration
    )]
    pub(crate) drain_timeout: Duration,

    /// Permissions of Unix sockets of --listen. Connecting needs write permission.
    #[arg(
        long,
        value_name = "OCTAL",
        env = "OUTER_SOCKET_MODE",
        default_value = "600",
        value_parser = mode
    )]
    pub(crate) socket_mode: u32,

    /// When to tell the service manager that the service is ready (Type=notify).
    #[arg(
        long,
        value_name = "WHEN",
        env = "OUTER_READY_WHEN",
        default_value = "listening"
    )]
    pub(crate) ready_when: ReadyWhen,

    /// Where the logs of guests go: stdout (each line with time, guest and stream), none, or a
    /// directory: DIR/NAME/stdout.log, stderr.log and log.log, byte for byte.
    #[arg(
        long,
        value_name = "stdout|none|DIR",
        env = "OUTER_GUEST_LOGS",
        default_value = "stdout"
    )]
    pub(crate) guest_logs: GuestLogs,

    /// Answer `enclaver-outer status` on this Unix socket, which only this user and root may open
    /// [default: none].
    #[arg(long, value_name = "PATH", env = "OUTER_CONTROL")]
    pub(crate) control: Option<PathBuf>,

    /// The least level that is logged to stderr; debug logs every flow.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "OUTER_LOG_LEVEL",
        default_value = "info",
        value_parser = ["error", "warn", "info", "debug", "trace"]
    )]
    pub(crate) log_level: String,
}

/// When the service counts as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ReadyWhen {
    /// Guests can connect.
    Listening,
    /// A guest is connected.
    Linked,
    /// The app of a guest runs.
    Running,
}

/// Whether guests are allowed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Permission {
    /// Allowed.
    #[default]
    Allow,
    /// Denied.
    Deny,
}

/// Reads a name with or without a port.
fn kms_endpoint(text: &str) -> Result<KmsEndpoint, String> {
    KmsEndpoint::parse(text).map_err(|error| format!("expected a DNS name or name:port: {error}"))
}

/// Reads an address with or without a port; IPv6 with a port is in brackets.
fn resolver(text: &str) -> Result<std::net::SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>()
    {
        Ok(address) => Ok((address, 53).into()),
        Err(_) => Err("expected an address or address:port".into()),
    }
}

/// Reads a network, or an address as a network with one address.
fn net(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.into());
    }
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() == net => Ok(net),
        Ok(net) => Err(format!(
            "has bits behind its prefix: did you mean {}?",
            net.trunc()
        )),
        Err(_) => Err("expected an address or a network such as 10.0.0.0/8".into()),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let parsed = u32::from_str_radix(text, 8).map_err(|error: ParseIntError| error.to_string())?;
    if parsed <= 0o777 {
        Ok(parsed)
    } else {
        Err("expected three octal digits".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        OuterCli::command().debug_assert();
    }

    #[test]
    fn every_setting_is_in_the_documentation() {
        use clap::CommandFactory;
        let text = include_str!("../../../../docs/operations.md");
        let (_, text) = text.split_once("### `enclaver-outer run`").unwrap();
        let command = OuterCli::command();
        let run = command.find_subcommand("run").unwrap();
        let settings = run
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .filter(|flag| !["help", "version", "config", "print-config"].contains(flag));
        for flag in settings {
            let row = format!("| `{}` |", flag.replace('-', "_"));
            assert!(text.contains(&row), "docs/operations.md has no {row}");
        }
    }

    #[test]
    fn resolvers_have_a_port_or_the_usual_one() {
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(resolver(text), Ok(address.parse().unwrap()), "{text}");
        }
        assert!(resolver("dns.example").is_err());
    }

    #[test]
    fn a_network_that_is_not_one_is_an_error() {
        assert_eq!(net("10.0.0.0/8"), Ok("10.0.0.0/8".parse().unwrap()));
        assert_eq!(net("192.0.2.1"), Ok("192.0.2.1/32".parse().unwrap()));
        assert_eq!(
            net("10.1.0.0/8"),
            Err("has bits behind its prefix: did you mean 10.0.0.0/8?".into())
        );
        assert!(net("10.0.0.0/33").is_err() && net("example.com").is_err());
    }

    #[test]
    fn endpoints_of_kms_are_names() {
        assert_eq!(
            kms_endpoint("KMS.example").unwrap().authority(),
            "kms.example:443"
        );
        assert_eq!(kms_endpoint("kms:8443").unwrap().port().get(), 8443);
        assert!(kms_endpoint("192.0.2.1").is_err() && kms_endpoint("kms:0").is_err());
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("660"), Ok(0o660));
        assert!(mode("1777").is_err() && mode("8").is_err());
    }
}
