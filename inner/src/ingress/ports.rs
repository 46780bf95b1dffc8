//! The ports of the policy's `ingress`, with what has to be read for them.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use odyn_ingress_tls::Fault;
use odyn_policy::{IngressSettings, IngressTls, ProxyProtocol, TlsFiles};
use tokio::net::TcpStream;

use super::tls::Tls;
use crate::ingress::app::AppPort;
use crate::ingress::proxy_header::ClientHeader;

/// Files of the policy's `ingress` that are missing or wrong: one text for all of them, each with
/// its place in the policy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IngressFilesError(String);

/// Ports that can be served.
#[derive(Debug, Default)]
pub struct Ports {
    pub(super) ports: HashMap<NonZeroU16, Port>,
}

/// Where clients of one port go, and how.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) program: AppPort,
    /// How long clients wait for the program to listen.
    pub(super) patience: Duration,
    pub(super) tls: Option<Tls>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
}

impl Port {
    /// A connection of the app, which has been told of the client.
    ///
    /// # Errors
    /// When the app does not listen in time, or does not take the header.
    pub(super) async fn connect(
        &self,
        header: ClientHeader,
        alpn: Option<&[u8]>,
        server_name: Option<&str>,
    ) -> io::Result<TcpStream> {
        let mut socket = self.program.connect(self.patience).await?;
        header.tell(&mut socket, alpn, server_name).await?;
        Ok(socket)
    }
}

impl Ports {
    /// Reads the files that the policy names. `policy` is its path, for the words of the error.
    ///
    /// # Errors
    /// Each file that is not what it should be, with its place in the policy and what to do.
    pub fn prepare(wanted: &[IngressSettings], policy: &Path) -> Result<Self, IngressFilesError> {
        let mut faults = Vec::new();
        let mut ports = HashMap::new();
        for entry in wanted {
            let Some(files) = tls_files(entry) else {
                continue;
            };
            let tls = match files.map(Tls::load).transpose() {
                Ok(tls) => tls,
                Err(found) => {
                    faults.extend(found);
                    continue;
                }
            };
            let port = Port {
                program: AppPort::new(entry.target_port),
                patience: entry.wait_timeout,
                tls,
                proxy_protocol: entry.proxy_protocol,
            };
            ports.insert(entry.listen_port, port);
        }
        match faults.as_slice() {
            [] => Ok(Self { ports }),
            faults => Err(IngressFilesError(describe(faults, policy))),
        }
    }
}

/// The files of an entry, if it is to have TLS. `None` for an entry that we cannot serve: a client
/// must not get without TLS what is meant to have it.
fn tls_files(entry: &IngressSettings) -> Option<Option<&TlsFiles>> {
    match &entry.tls {
        None => Some(None),
        Some(IngressTls::Files(files)) => Some(Some(files)),
        Some(_) => {
            tracing::error!(
                port = entry.listen_port,
                "this version has no `tls: {{ attested: true }}`: the port is not served"
            );
            None
        }
    }
}

/// With the lines of the policy, if it can still be read.
fn describe(faults: &[Fault], policy: &Path) -> String {
    let name = policy.display().to_string();
    let text = std::fs::read_to_string(policy).unwrap_or_default();
    let faults = faults
        .iter()
        .map(|fault| odyn_policy::render(&fault.diagnostic(&name), &text));
    faults.collect::<Vec<_>>().join("\n")
}
