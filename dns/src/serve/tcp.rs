//! DNS over TCP (RFC 7766): each message after its length in two bytes.
//!
//! A connection is one task that reads, and a task per query that waits; answers go out as they
//! come, in any order. There are limits for connections, for queries in flight per connection, and
//! for the time until the next query or until the client takes an answer. At the limit of queries,
//! reading stops, so a client that sends without reading stalls itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::name_policy::{NamePolicy, QueryTransport};
use crate::resolver::Resolver;
use crate::upstream::Upstream;

/// Longest query in bytes. One question with every option in use is far shorter.
const MAX_QUERY: usize = 4096;
/// Wait after a failed accept: its cause (no file descriptors) takes a while to pass.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Answers queries on connections of `listener` until it fails or the future is dropped.
///
/// The connections end with the future.
///
/// # Errors
/// The listener cannot be used any more.
pub async fn serve_tcp<G: NamePolicy, U: Upstream>(
    listener: TcpListener,
    resolver: Resolver<G, U>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, client) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "DNS connection not accepted");
                    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        if connections.len() >= resolver.config().tcp_connections {
            // Closed immediately: a client learns more from that than from waiting.
            continue;
        }
        connections.spawn(connection(stream, client, resolver.clone()));
    }
}

async fn connection<G: NamePolicy, U: Upstream>(
    stream: TcpStream,
    client: SocketAddr,
    resolver: Resolver<G, U>,
) {
    // Answers are written whole; waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(MAX_QUERY, reader);
    let writer = Arc::new(Mutex::new(writer));
    let idle = resolver.config().tcp_idle;
    let pipeline = Arc::new(Semaphore::new(resolver.config().tcp_pipeline.max(1)));
    let mut answers = JoinSet::new();
    while let Ok(permit) = Arc::clone(&pipeline).acquire_owned().await {
        let Ok(Ok(Some(query))) = timeout(idle, read(&mut reader)).await else {
            break;
        };
        while let Some(sent) = answers.try_join_next() {
            if !matches!(sent, Ok(true)) {
                return;
            }
        }
        let resolver = resolver.clone();
        let writer = Arc::clone(&writer);
        answers.spawn(async move {
            let sent = match resolver.answer(&query, client, QueryTransport::Tcp).await {
                Some(reply) => timeout(idle, write(&writer, &reply)).await,
                None => Ok(Ok(())),
            };
            drop(permit);
            // After part of a message, the stream is useless.
            matches!(sent, Ok(Ok(())))
        });
    }
    // A client that closed its side after its last query still waits for the answer.
    while let Some(Ok(true)) = answers.join_next().await {}
}

/// One message; `None` at the end of the stream.
async fn read(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let length = match reader.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_QUERY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut query = vec![0; length];
    reader.read_exact(&mut query).await?;
    Ok(Some(query))
}

async fn write(writer: &Mutex<OwnedWriteHalf>, reply: &[u8]) -> io::Result<()> {
    let length = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    // Length and message in one segment (RFC 7766 section 8).
    let mut message = Vec::with_capacity(2 + reply.len());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(reply);
    writer.lock().await.write_all(&message).await
}
