//! Writes the header of the PROXY protocol, which tells the app who its client is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use odyn_policy::ProxyProtocol;
use odyn_proto::proxy_header::{Tlv, write_v1, write_v2};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the write may take. A header fits into the empty send buffer of a new socket, so only a
/// broken system needs the time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The header for one client. Without a version nothing is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientHeader {
    pub(super) version: Option<ProxyProtocol>,
    /// The client's address, from the host.
    pub(super) client: SocketAddr,
    /// The address that the client connected to, from the host.
    pub(super) local: SocketAddr,
}

impl ClientHeader {
    /// Writes the header. Version 2 adds the results of the TLS handshake.
    ///
    /// # Errors
    /// The app does not take it.
    pub(super) async fn tell(
        &self,
        app: &mut TcpStream,
        alpn: Option<&[u8]>,
        server: Option<&str>,
    ) -> io::Result<()> {
        let header = match self.version {
            None => return Ok(()),
            Some(ProxyProtocol::V1) => write_v1(self.client, self.local),
            Some(_) => {
                let tlvs = [alpn.map(Tlv::alpn), server.map(Tlv::authority)];
                let tlvs: Vec<Tlv<'_>> = tlvs.into_iter().flatten().collect();
                write_v2(self.client, self.local, &tlvs)
            }
        };
        timeout(WRITE_TIMEOUT, app.write_all(&header))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
