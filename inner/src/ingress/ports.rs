//! Prepares the ports of the policy's `ingress` and reads their files.

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

/// The files of the policy's `ingress` that are missing or wrong. The text lists all of them, each
/// with its place in the policy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IngressFilesError(String);

/// The ports that the guest serves.
#[derive(Debug, Default)]
pub struct Ports {
    pub(super) ports: HashMap<NonZeroU16, Port>,
}

/// The target and the settings of one port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) app: AppPort,
    /// How long clients wait for the app to listen.
    pub(super) wait_timeout: Duration,
    pub(super) tls: Option<Tls>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
}

impl Port {
    /// Connects to the app and writes the client's header to it.
    ///
    /// # Errors
    /// The app does not listen in time, or does not take the header.
    pub(super) async fn connect(
        &self,
        header: ClientHeader,
        alpn: Option<&[u8]>,
        server_name: Option<&str>,
    ) -> io::Result<TcpStream> {
        let mut socket = self.app.connect(self.wait_timeout).await?;
        header.tell(&mut socket, alpn, server_name).await?;
        Ok(socket)
    }
}

impl Ports {
    /// Reads the files that the policy names. The error text names `policy`, the path.
    ///
    /// # Errors
    /// Files are missing or wrong: the text lists each with its place in the policy and a remedy.
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
                app: AppPort::new(entry.target_port),
                wait_timeout: entry.wait_timeout,
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

/// Returns the TLS files of an entry, if it has any. `None` for an entry that this version cannot
/// serve: its clients must not get a connection without TLS.
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

/// Describes the faults, with the policy's lines if the file can still be read.
fn describe(faults: &[Fault], policy: &Path) -> String {
    let name = policy.display().to_string();
    let text = std::fs::read_to_string(policy).unwrap_or_default();
    let faults = faults
        .iter()
        .map(|fault| odyn_policy::render(&fault.diagnostic(&name), &text));
    faults.collect::<Vec<_>>().join("\n")
}
