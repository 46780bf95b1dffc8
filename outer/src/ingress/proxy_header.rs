//! Reads the header of the PROXY protocol before the bytes of a client.

use std::io;
use std::time::Duration;

use odyn_proto::proxy_header::{Header, HeaderDecoder, HeaderError};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Bytes that are peeked at once: enough for nearly every header.
const PEEK_LEN: usize = 256;

/// Why no header was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("the connection ended before the header of the PROXY protocol")]
    Ended,
    #[error("the header of the PROXY protocol did not come in {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Bad(#[from] HeaderError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header off the connection, and not a byte more.
pub(super) async fn take(socket: &TcpStream, limit: Duration) -> Result<Header, ProxyHeaderError> {
    timeout(limit, read(socket))
        .await
        .map_err(|_| ProxyHeaderError::Late(limit))?
}

async fn read(socket: &TcpStream) -> Result<Header, ProxyHeaderError> {
    let mut decoder = HeaderDecoder::default();
    let mut bytes = [0; PEEK_LEN];
    loop {
        // Bytes after the header stay in the socket, for the relay.
        let count = socket.peek(&mut bytes).await?;
        if count == 0 {
            return Err(ProxyHeaderError::Ended);
        }
        let seen = bytes.get(..count).unwrap_or_default();
        let (mut taken, header) = decoder.feed(seen)?;
        while taken > 0 {
            match socket.try_read(bytes.get_mut(..taken).unwrap_or_default()) {
                Ok(0) => return Err(ProxyHeaderError::Ended),
                Ok(count) => taken = taken.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.readable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(header) = header {
            return Ok(header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const LONG: Duration = Duration::from_secs(60);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        near.as_ref().unwrap().set_nodelay(true).unwrap();
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn what_follows_the_header_stays_whatever_the_pieces() {
        let line = b"PROXY TCP4 192.0.2.9 198.51.100.1 40000 443\r\nGET / HTTP/1.1\r\n";
        for size in [1, 7, 44, 45, 46, line.len()] {
            let (mut client, mut server) = pair().await;
            let write = async {
                for piece in line.chunks(size) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let ((), header) = tokio::join!(write, take(&server, LONG));
            let source = "192.0.2.9:40000".parse().unwrap();
            let destination = "198.51.100.1:443".parse().unwrap();
            let wanted = Header::Proxied {
                source,
                destination,
            };
            assert_eq!(header.unwrap(), wanted);
            let mut rest = Vec::new();
            server.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        }
    }

    #[tokio::test]
    async fn a_late_header_an_ended_connection_and_no_header_are_different_errors() {
        let (mut client, server) = pair().await;
        client.write_all(b"PROXY TCP4 ").await.unwrap();
        let late = take(&server, Duration::from_millis(20)).await;
        assert!(matches!(late, Err(ProxyHeaderError::Late(_))), "{late:?}");
        drop(client);
        let ended = take(&server, LONG).await;
        assert!(matches!(ended, Err(ProxyHeaderError::Ended)), "{ended:?}");
        let (mut client, server) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let bad = take(&server, LONG).await;
        assert!(matches!(bad, Err(ProxyHeaderError::Bad(_))), "{bad:?}");
    }
}
