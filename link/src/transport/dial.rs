//! Connects the transport: vsock, Unix, or a hybrid socket of a monitor.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use odyn_proto::Endpoint;
use odyn_proto::wire::hybrid;
use odyn_proto::wire::hybrid::HybridError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_vsock::{VsockAddr, VsockStream};

use crate::config::Tuning;
use crate::error::DialError;
use crate::transport::stream::Transport;

/// Connects to `endpoint` in at most `limit`.
///
/// # Errors
/// When the socket can't be connected, or the virtual machine monitor refuses to connect it to the
/// port.
pub async fn dial(
    endpoint: &Endpoint,
    tuning: &Tuning,
    limit: Duration,
) -> Result<Transport, DialError> {
    endpoint.check_dialable()?;
    match endpoint {
        Endpoint::Vsock { cid, port } => {
            let address = VsockAddr::new(*cid, *port);
            let socket = within(limit, async { Ok(VsockStream::connect(address).await?) }).await?;
            Ok(Transport::vsock(socket, tuning)?)
        }
        Endpoint::Unix { path } => {
            let socket = within(limit, async { Ok(UnixStream::connect(path).await?) }).await?;
            Ok(Transport::unix(socket, tuning)?)
        }
        Endpoint::Hybrid { path, port } => {
            let socket = within(limit, hybrid_connect(path, *port)).await?;
            Ok(Transport::unix(socket, tuning)?)
        }
    }
}

async fn within<T>(
    limit: Duration,
    connect: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    timeout(limit, connect)
        .await
        .map_err(|_| DialError::Timeout(limit))?
}

async fn hybrid_connect(path: &Path, port: u32) -> Result<UnixStream, DialError> {
    let mut socket = UnixStream::connect(path).await?;
    socket.write_all(hybrid::request(port).as_bytes()).await?;
    let mut reply = Vec::with_capacity(hybrid::MAX_REPLY);
    // One byte at a time: bytes behind the newline belong to the host.
    while hybrid::parse_reply(&reply)?.is_none() {
        let byte = socket.read_u8().await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                DialError::Hybrid(HybridError::Closed)
            }
            _ => DialError::Io(error),
        })?;
        reply.push(byte);
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn monitor(reply: &'static [u8]) -> Result<Transport, DialError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut line = [0; 13];
            socket.read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"CONNECT 5000\n");
            socket.write_all(reply).await.unwrap();
            socket
        };
        let endpoint = Endpoint::Hybrid {
            path: path.clone(),
            port: 5000,
        };
        let tuning = Tuning::default();
        let (held, dialled) =
            tokio::join!(serve, dial(&endpoint, &tuning, Duration::from_secs(60)));
        let mut transport = dialled?;
        // What came behind the line must still be there.
        drop(held);
        let mut rest = String::new();
        transport.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "rest");
        Ok(transport)
    }

    #[tokio::test]
    async fn the_monitors_answer_is_read_to_its_newline_and_no_further() {
        monitor(b"OK 1073741824\nrest").await.unwrap();
    }

    #[tokio::test]
    async fn a_bad_answer_is_an_error() {
        assert!(matches!(
            monitor(b"ERR no\n").await,
            Err(DialError::Hybrid(HybridError::NotOk(line))) if line == "ERR no"
        ));
        assert!(matches!(
            monitor(&[b'x'; 100]).await,
            Err(DialError::Hybrid(HybridError::TooLong))
        ));
    }
}
