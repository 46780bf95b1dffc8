//! Listens for the clients of a simulated guest, on the caller's machine.
//!
//! The sockets are bound before the guest starts, so that a taken address is an error of the
//! command and not a line in a log.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use enclaver_outer::ingress::InheritedSockets;
use enclaver_outer::{Bind, Mapping};
use odyn_policy::{IngressSettings, IngressTls};

use crate::error::CliError;

/// The host's settings for clients.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) mappings: Vec<Mapping>,
    pub(super) sockets: InheritedSockets,
}

/// Listens for the ports of the policy: at the addresses in `asked`, else on loopback. A
/// developer's app is thus on no network without being asked for.
///
/// # Errors
/// The policy does not have a port, or an address is taken or not allowed.
pub(super) fn listen(ingress: &[IngressSettings], asked: &[Mapping]) -> Result<Clients, CliError> {
    let mappings = mappings(ingress, asked)?;
    let addresses = mappings.iter().filter_map(|mapping| match mapping.bind {
        Bind::Address(address) => Some(address),
        Bind::Named(_) => None,
    });
    let sockets = InheritedSockets::bind(addresses)
        .map_err(|(address, error)| unavailable(&mappings, address, error))?;
    Ok(Clients { mappings, sockets })
}

fn mappings(ingress: &[IngressSettings], asked: &[Mapping]) -> Result<Vec<Mapping>, CliError> {
    let is_in_policy = |asked: &&Mapping| ingress.iter().any(|has| has.listen_port == asked.port);
    if let Some(wrong) = asked.iter().find(|asked| !is_in_policy(asked)) {
        return Err(CliError::NotInPolicy(Box::new(wrong.clone())));
    }
    let mut mappings = Vec::new();
    for entry in ingress {
        // The guest does not serve this port and logs that, so there is no socket for clients.
        if matches!(entry.tls, Some(IngressTls::Attested)) {
            continue;
        }
        let before = mappings.len();
        let for_it = asked.iter().filter(|asked| asked.port == entry.listen_port);
        mappings.extend(for_it.cloned());
        if mappings.len() == before {
            let loopback = (Ipv4Addr::LOCALHOST, entry.listen_port.get());
            mappings.push(Mapping {
                guest: None,
                port: entry.listen_port,
                bind: Bind::Address(loopback.into()),
            });
        }
    }
    Ok(mappings)
}

fn unavailable(mappings: &[Mapping], address: SocketAddr, source: io::Error) -> CliError {
    let port = mappings
        .iter()
        .find(|mapping| mapping.bind == Bind::Address(address))
        .map_or(address.port(), |mapping| mapping.port.get());
    CliError::Listen {
        address,
        port,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use odyn_net::exit::Failure;

    use super::*;

    fn ingress(yaml: &str) -> Vec<IngressSettings> {
        let text = format!("version: v1\nname: x\ningress:\n{yaml}");
        let loaded = odyn_policy::load_bytes("policy.yaml", text.as_bytes());
        let policy = loaded.policy.expect("a policy");
        policy.settings().ingress.clone()
    }

    fn texts(ingress: &[IngressSettings], asked: &[&str]) -> Result<Vec<String>, String> {
        let asked: Vec<Mapping> = asked.iter().map(|text| text.parse().unwrap()).collect();
        let mappings = mappings(ingress, &asked).map_err(|error| error.to_string())?;
        Ok(mappings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_port_of_the_policy_is_on_loopback_or_where_it_is_asked_for() {
        let ingress = ingress("  - listen_port: 80\n    target_port: 8080\n  - listen_port: 443\n");
        assert_eq!(
            texts(&ingress, &[]).unwrap(),
            ["80=127.0.0.1:80", "443=127.0.0.1:443"]
        );
        let asked = ["80=127.0.0.1:8000", "80=[::1]:8000"];
        assert_eq!(
            texts(&ingress, &asked).unwrap(),
            ["80=127.0.0.1:8000", "80=[::1]:8000", "443=127.0.0.1:443"]
        );
        let wrong = texts(&ingress, &["81=127.0.0.1:8000"]).unwrap_err();
        assert!(
            wrong.contains("no `ingress` with `listen_port: 81`"),
            "{wrong}"
        );
    }

    #[test]
    fn a_port_that_the_guest_does_not_serve_is_not_listened_on() {
        let ingress = ingress("  - listen_port: 443\n    tls: { attested: true }\n");
        assert_eq!(texts(&ingress, &[]).unwrap(), [""; 0]);
        assert_eq!(texts(&ingress, &["443=127.0.0.1:1"]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_taken_address_is_an_error_that_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let ingress = ingress("  - listen_port: 80\n");
        let asked = format!("80={address}").parse().unwrap();
        let error = listen(&ingress, &[asked]).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.failure(), Failure::Unavailable);
        let wanted = format!("cannot listen at {address} for clients of port 80: ");
        assert!(text.starts_with(&wanted), "{text}");
        assert!(text.ends_with("--ingress 80=127.0.0.1:PORT"), "{text}");
    }
}
