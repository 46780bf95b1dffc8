//! What the program is told of a client before its first byte: the header of the PROXY protocol.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use odyn_policy::ProxyProtocol;
use odyn_proto::proxy_header::{Tlv, write_v1, write_v2};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A header goes into the empty send buffer of a new socket: only a broken system makes it wait.
const LIMIT: Duration = Duration::from_secs(5);

/// The header for one client, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientHeader {
    pub(super) version: Option<ProxyProtocol>,
    /// As the host half says.
    pub(super) client: SocketAddr,
    /// What the client connected to, as the host half says.
    pub(super) local: SocketAddr,
}

impl ClientHeader {
    /// Writes the header. Version 2 also says what TLS has agreed on.
    ///
    /// # Errors
    /// When the program does not take it.
    pub(super) async fn tell(
        &self,
        program: &mut TcpStream,
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
        timeout(LIMIT, program.write_all(&header))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
