//! DNS over streams (RFC 7766): each message behind its length in two bytes.
//!
//! A connection is one task that reads, and a task per query that waits; answers go out as they
//! come, in any order. What is bounded: connections, queries under way per connection (reading
//! stops at the bound, so a client that sends without reading is stalled by its own socket), and
//! the time a client may take to ask the next question or to take in an answer.

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

use crate::name_policy::{NamePolicy, Transport};
use crate::resolver::Resolver;
use crate::upstream::Upstream;

/// Longest query that is read. One question with every option in use is far below.
const LONGEST_QUERY: usize = 4096;
/// Pause after a failed accept: what fails it (no file descriptors) passes, but not at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers queries on connections of `listener` until it breaks or the future is dropped; the
/// connections end with it.
///
/// # Errors
/// Whatever makes the listener unusable for good.
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
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        if connections.len() >= resolver.config().tcp_connections {
            // Closed at once: a client learns more from that than from waiting.
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
    let mut reader = BufReader::with_capacity(LONGEST_QUERY, reader);
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
            let sent = match resolver.answer(&query, client, Transport::Tcp).await {
                Some(reply) => timeout(idle, write(&writer, &reply)).await,
                None => Ok(Ok(())),
            };
            drop(permit);
            // After a part of a message nothing more can be said on this stream.
            matches!(sent, Ok(Ok(())))
        });
    }
    // The client may have closed its side after its last question and still wait for the answer.
    while let Some(Ok(true)) = answers.join_next().await {}
}

/// One message; `None` at the end of the stream.
async fn read(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
    let length = match reader.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > LONGEST_QUERY {
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
