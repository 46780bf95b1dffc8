//! Carries a feed to the host, over as many connections as that needs.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::{HeaderValue, Method};
use odyn_proto::Identity;
use odyn_proto::identity::{GUEST, RUN};
use odyn_proto::wire::feed;
use odyn_proto::wire::feed::{AckDecoder, FIRST, NEXT, PREFIX};
use tokio::time::sleep;
use tracing::debug;

use super::Feed;
use super::queue::FeedWork;
use crate::error::{OpenError, PeerMisbehaved};
use crate::http2::chunk::{Chunk, InFlight};
use crate::http2::message::{host_uri, request_for};
use crate::pool::request::{OpenedRequest, RequestBody};
use crate::pool::{FlowClass, Pool, PoolHandle};

/// Bytes that the carrier gives to HTTP/2 at once: other streams share the connection.
const MAX_CHUNK: usize = 32 * 1024;
/// First pause before a feed is opened again. It doubles while the host acknowledges nothing.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Longest pause before a feed is opened again.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a feed's stream ended before the feed.
#[derive(Debug, thiserror::Error)]
enum FeedInterrupted {
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Stream(#[from] h2::Error),
    #[error("the host ended the stream")]
    Ended,
    #[error("the host broke the protocol: {0}")]
    Protocol(#[from] PeerMisbehaved),
}

/// Carries `feed` until the host has all of it, or the pool opens no more.
pub(crate) async fn carry(pool: PoolHandle, guest: Identity, name: &'static str, feed: Feed) {
    let mut pause = MIN_RETRY_INTERVAL;
    loop {
        let before = feed.first();
        // A feed without records asks nothing of the host.
        feed.work(before, 0).await;
        let broken = match attempt(&pool, &guest, name, &feed).await {
            Ok(()) => return feed.finish(),
            Err(FeedInterrupted::Open(OpenError::Closing)) => {
                debug!(name, "the link is closed before the feed has ended");
                return;
            }
            Err(broken) => broken,
        };
        if feed.first() > before {
            pause = MIN_RETRY_INTERVAL;
        }
        debug!(name, reason = %broken, ?pause, "feed is to be opened again");
        sleep(pause).await;
        pause = (pause * 2).min(MAX_RETRY_INTERVAL);
    }
}

/// Carries the feed on one stream, until the host confirms its end.
async fn attempt(
    pool: &Pool,
    guest: &Identity,
    name: &str,
    feed: &Feed,
) -> Result<(), FeedInterrupted> {
    let opened = open(pool, guest, name, feed.first()).await?;
    let next = wanted(&opened)?;
    let (mut send, mut recv, _slot) = opened.into_parts();
    if next > feed.end_number() {
        return Err(PeerMisbehaved::FutureRecordWanted.into());
    }
    // Records that another host process has acknowledged are gone: asking for them is in vain.
    let mut cursor = next.max(feed.first());
    feed.acknowledge(cursor);
    let in_flight = Arc::new(InFlight::default());
    let mut decoder = AckDecoder::default();
    let mut out = Bytes::new();
    let mut ended = false;
    loop {
        tokio::select! {
            biased;
            data = recv.data() => match data {
                Some(Ok(bytes)) => {
                    let _ = recv.flow_control().release_capacity(bytes.len());
                    decoder.push(&bytes, |number| check(number, feed, cursor))?;
                }
                Some(Err(error)) => return Err(error.into()),
                None if ended && feed.first() == cursor => return Ok(()),
                None => return Err(FeedInterrupted::Ended),
            },
            room = room(&mut send, out.len()), if !out.is_empty() => {
                let part = out.split_to(room?.min(out.len()));
                send.send_data(in_flight.chunk(part), false)?;
            }
            work = feed.work(cursor, MAX_CHUNK), if out.is_empty() && !ended => match work {
                FeedWork::Records(bytes, count) => {
                    out = bytes;
                    cursor += count;
                }
                FeedWork::End => {
                    send.send_data(in_flight.chunk(Bytes::new()), true)?;
                    ended = true;
                }
            },
        }
    }
}

/// Asks the host to take the feed from record `first` on.
async fn open(
    pool: &Pool,
    guest: &Identity,
    name: &str,
    first: u64,
) -> Result<OpenedRequest, OpenError> {
    let mut request = request_for(Method::POST, host_uri(&format!("{PREFIX}{name}"))?, None)?;
    for (header, value) in [
        (GUEST, guest.name.to_string()),
        (RUN, guest.run.to_string()),
    ] {
        let value = HeaderValue::try_from(value).map_err(http::Error::from)?;
        request.headers_mut().insert(header, value);
    }
    request
        .headers_mut()
        .insert(FIRST, HeaderValue::from(first));
    pool.request(FlowClass::Feed, &request, RequestBody::Nothing)
        .await
}

/// Number of the record that the host wants next.
fn wanted(opened: &OpenedRequest) -> Result<u64, FeedInterrupted> {
    let value = opened.response.headers().get(NEXT);
    value
        .and_then(|value| feed::parse_number(value.as_bytes()).ok())
        .ok_or(PeerMisbehaved::NoWantedRecord.into())
}

/// Takes an acknowledgement, if it is possible.
fn check(number: u64, feed: &Feed, sent: u64) -> Result<(), FeedInterrupted> {
    if number > sent {
        return Err(PeerMisbehaved::UnsentAcknowledged.into());
    }
    if number < feed.first() {
        return Err(PeerMisbehaved::AcknowledgementBack.into());
    }
    feed.acknowledge(number);
    Ok(())
}

/// Waits for room to send up to `wanted` bytes.
async fn room(send: &mut SendStream<Chunk>, wanted: usize) -> Result<usize, h2::Error> {
    send.reserve_capacity(wanted);
    poll_fn(|cx| {
        loop {
            let room = send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match send.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                // The stream is closed; the receiving side has the reason.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
