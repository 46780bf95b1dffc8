//! The host's end of a feed: reads records, passes them to the sink, acknowledges them.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderValue, Response};
use odyn_proto::wire::feed::{FeedError, FeedRecord, NEXT, RecordDecoder};
use tracing::debug;

use super::FeedSink;
use crate::http2::chunk::{Chunk, InFlight};

/// Largest batch that a sink gets at once, one record more or less.
const MAX_BATCH: usize = 128 * 1024;

/// What the server of a feed does next.
enum RecordStep {
    Write(Vec<FeedRecord>),
    End,
    /// The guest gave up, or the connection is lost.
    Gone,
    /// The host is about to stop.
    Stop,
    Malformed(FeedError),
}

/// Serves one stream of a feed, until it ends or `stop` is ready.
pub(crate) async fn serve(
    mut sink: Box<dyn FeedSink>,
    body: RecvStream,
    respond: &mut SendResponse<Chunk>,
    stop: impl Future<Output = ()>,
) {
    let mut written = sink.next();
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert(NEXT, HeaderValue::from(written));
    let Ok(send) = respond.send_response(response, false) else {
        return;
    };
    let mut acks = AckWriter::new(send, written);
    let mut reader = RecordReader {
        body,
        decoder: RecordDecoder::default(),
        batch: Vec::new(),
        size: 0,
    };
    tokio::pin!(stop);
    loop {
        let step = tokio::select! {
            biased;
            event = acks.event() => match event {
                AckEvent::Reset => RecordStep::Gone,
                AckEvent::Room => {
                    acks.say(false);
                    continue;
                }
            },
            () = &mut stop => RecordStep::Stop,
            step = poll_fn(|cx| reader.poll_step(cx)) => step,
        };
        match step {
            RecordStep::Write(records) => {
                let Some(next) = written.checked_add(records.len() as u64) else {
                    return acks.fail("more records than there are numbers");
                };
                tokio::select! {
                    biased;
                    result = sink.write(records) => if let Err(refusal) = result {
                        return acks.fail(refusal);
                    },
                    () = acks.reset() => return,
                }
                written = next;
                acks.set(written);
            }
            RecordStep::End => {
                tokio::select! {
                    biased;
                    result = sink.end() => if let Err(refusal) = result {
                        return acks.fail(refusal);
                    },
                    () = acks.reset() => return,
                }
                return acks.finish().await;
            }
            // Records that are not acknowledged come again on another connection.
            RecordStep::Stop => return acks.finish().await,
            RecordStep::Gone => return,
            RecordStep::Malformed(error) => return acks.fail(error),
        }
    }
}

/// Reads the stream of records.
struct RecordReader {
    body: RecvStream,
    decoder: RecordDecoder,
    batch: Vec<FeedRecord>,
    size: usize,
}

impl RecordReader {
    /// Collects the records that have come, and waits only when none has.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<RecordStep> {
        loop {
            while self.size < MAX_BATCH {
                match self.decoder.record() {
                    Ok(Some(record)) => {
                        self.size += record.size();
                        self.batch.push(record);
                    }
                    Ok(None) => break,
                    Err(error) => return Poll::Ready(RecordStep::Malformed(error)),
                }
            }
            if self.size >= MAX_BATCH {
                return Poll::Ready(self.take());
            }
            match self.body.poll_data(cx) {
                Poll::Pending if self.batch.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(self.take()),
                Poll::Ready(Some(Ok(bytes))) => {
                    let _ = self.body.flow_control().release_capacity(bytes.len());
                    self.decoder.push(&bytes);
                }
                Poll::Ready(Some(Err(_))) if self.batch.is_empty() => {
                    return Poll::Ready(RecordStep::Gone);
                }
                Poll::Ready(None) if self.batch.is_empty() => {
                    return Poll::Ready(match self.decoder.finish() {
                        Ok(()) => RecordStep::End,
                        Err(error) => RecordStep::Malformed(error),
                    });
                }
                // The records before the end or the error are written first.
                Poll::Ready(_) => return Poll::Ready(self.take()),
            }
        }
    }

    fn take(&mut self) -> RecordStep {
        self.size = 0;
        RecordStep::Write(std::mem::take(&mut self.batch))
    }
}

/// An event on the stream of acknowledgements.
enum AckEvent {
    Reset,
    Room,
}

/// Writes the stream of acknowledgements. A number that has no room is replaced by the next.
struct AckWriter {
    send: SendStream<Chunk>,
    in_flight: Arc<InFlight>,
    said: u64,
    now: u64,
}

impl AckWriter {
    fn new(mut send: SendStream<Chunk>, said: u64) -> Self {
        send.reserve_capacity(size_of::<u64>());
        Self {
            send,
            in_flight: Arc::default(),
            said,
            now: said,
        }
    }

    /// Notes that all records before `now` are written.
    fn set(&mut self, now: u64) {
        self.now = now;
        if self.send.capacity() >= size_of::<u64>() {
            self.say(false);
        }
    }

    fn say(&mut self, end: bool) {
        let number = Bytes::copy_from_slice(&self.now.to_be_bytes());
        // An error means that the stream was reset: the guest asks again.
        let _ = self.send.send_data(self.in_flight.chunk(number), end);
        self.said = self.now;
        self.send.reserve_capacity(size_of::<u64>());
    }

    /// Whether a number waits for room.
    fn owes(&self) -> bool {
        self.said != self.now
    }

    /// Waits for the end of the stream, or for room for a number that had none.
    async fn event(&mut self) -> AckEvent {
        poll_fn(|cx| {
            if let Poll::Ready(reset) = self.send.poll_reset(cx) {
                debug!(?reset, "the guest gave a feed up");
                return Poll::Ready(AckEvent::Reset);
            }
            if !self.owes() {
                return Poll::Pending;
            }
            loop {
                if self.send.capacity() >= size_of::<u64>() {
                    return Poll::Ready(AckEvent::Room);
                }
                match self.send.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    _ => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Waits for the end of the stream.
    async fn reset(&mut self) {
        let reset = poll_fn(|cx| self.send.poll_reset(cx)).await;
        debug!(?reset, "the guest gave a feed up");
    }

    /// Sends the last number, and the end.
    async fn finish(mut self) {
        if self.owes() {
            self.say(true);
        } else {
            let chunk = self.in_flight.chunk(Bytes::new());
            let _ = self.send.send_data(chunk, true);
        }
        self.in_flight.empty().await;
    }

    fn fail(mut self, reason: impl std::fmt::Display) {
        debug!(%reason, "a feed is cut");
        self.send.send_reset(Reason::INTERNAL_ERROR);
    }
}
