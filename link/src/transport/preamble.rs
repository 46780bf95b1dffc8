//! The first bytes of a connection tell which side opens its streams.

use std::time::Duration;

use bytes::BytesMut;
use odyn_proto::wire::lane;
use odyn_proto::wire::lane::{KEY_BYTES, LaneKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::LinkError;
use crate::transport::stream::Transport;

/// First bytes of a guest on a reversed connection. As long as HTTP/2's preface (RFC 9113 section
/// 3.4), with another first byte.
const PREAMBLE: &[u8; 24] = b"ODYN * REVERSE/1\r\n\r\nGO\r\n";

/// What a connection that a guest has dialled is for.
#[derive(Debug)]
pub enum Preamble {
    /// The guest opens the streams: give it to [`serve`](crate::serve).
    Forward(Transport),
    /// The host: to be given to [`greet_guest`](crate::greet_guest).
    Reversed(Transport),
    /// A lane of one flow: give it to [`HostLanes::serve`](crate::HostLanes::serve).
    Lane(LaneKey, Transport),
}

/// Reads the first bytes of a connection. HTTP/2's preface is left to be read again.
///
/// # Errors
/// When the bytes do not come in `limit`, or the transport fails.
pub async fn read_preamble(
    mut transport: Transport,
    limit: Duration,
) -> Result<Preamble, LinkError> {
    let read = async {
        let mut first = BytesMut::with_capacity(PREAMBLE.len());
        while first.len() < PREAMBLE.len() && is_begun(&first) {
            let room = PREAMBLE.len() - first.len();
            let count = (&mut transport)
                .take(room as u64)
                .read_buf(&mut first)
                .await;
            if count.map_err(LinkError::Transport)? == 0 {
                break;
            }
        }
        Ok::<_, LinkError>(first)
    };
    let first = timeout(limit, read)
        .await
        .map_err(|_| LinkError::Handshake(limit))??;
    if first == PREAMBLE.as_slice() {
        return Ok(Preamble::Reversed(transport));
    }
    if first == lane::PREAMBLE.as_slice() {
        let mut key = [0; KEY_BYTES];
        timeout(limit, transport.read_exact(&mut key))
            .await
            .map_err(|_| LinkError::Handshake(limit))?
            .map_err(LinkError::Transport)?;
        return Ok(Preamble::Lane(LaneKey::parse(&key), transport));
    }
    transport.unread(first.freeze());
    Ok(Preamble::Forward(transport))
}

/// Whether `first` may be the begin of a preamble.
fn is_begun(first: &[u8]) -> bool {
    PREAMBLE.starts_with(first) || lane::PREAMBLE.starts_with(first)
}

/// Sends the preamble of a reversed connection.
///
/// # Errors
/// When the transport fails, or takes longer than `limit`.
pub(crate) async fn say_reversed(
    transport: &mut Transport,
    limit: Duration,
) -> Result<(), LinkError> {
    timeout(limit, transport.write_all(PREAMBLE))
        .await
        .map_err(|_| LinkError::Handshake(limit))?
        .map_err(LinkError::Transport)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;
    use crate::config::Tuning;

    const LONG: Duration = Duration::from_secs(60);

    async fn opened(pieces: &[&[u8]]) -> Preamble {
        let (mut far, near) = UnixStream::pair().unwrap();
        let near = Transport::unix(near, &Tuning::default()).unwrap();
        let write = async {
            for piece in pieces {
                far.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(far);
        };
        let (_, opened) = tokio::join!(write, read_preamble(near, LONG));
        opened.unwrap()
    }

    #[tokio::test]
    async fn what_is_no_preamble_is_left_as_it_came() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
        for pieces in [
            vec![],
            vec![preface, b"more"],
            vec![b"P"],
            vec![b"ODYN * REVERSE/1"],
            vec![b"O", b"DYN * REVERSE/2\r\n\r\nGO\r\n", b"more"],
        ] {
            let Preamble::Forward(mut transport) = opened(&pieces).await else {
                panic!("{pieces:?}");
            };
            let mut rest = Vec::new();
            transport.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, pieces.concat());
        }
    }

    #[tokio::test]
    async fn a_preamble_is_taken_to_its_last_byte_and_no_further() {
        let (start, end) = PREAMBLE.split_at(7);
        for pieces in [
            vec![PREAMBLE.as_slice(), b"more"],
            vec![start, end, b"more"],
        ] {
            let Preamble::Reversed(mut transport) = opened(&pieces).await else {
                panic!("{pieces:?}");
            };
            let mut rest = Vec::new();
            transport.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"more");
        }
    }

    #[tokio::test]
    async fn silence_is_not_waited_for_for_ever() {
        let (_far, near) = UnixStream::pair().unwrap();
        let near = Transport::unix(near, &Tuning::default()).unwrap();
        let opened = read_preamble(near, Duration::from_millis(1)).await;
        assert!(matches!(opened, Err(LinkError::Handshake(_))), "{opened:?}");
    }
}
