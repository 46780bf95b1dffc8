//! From the link to the socket.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};

use crate::flow::lane::{Lane, POLL_BUDGET, PumpError, PumpStep};
use crate::flow::local_stream::LocalStream;
use crate::flow::stream::{Cut, Stream};

/// The relay joins waiting chunks of up to this size. Each would otherwise keep alive the large
/// buffer that h2 read it into.
const MAX_COPIED_CHUNK: usize = 4 * 1024;

/// Largest number of chunks in one write.
const MAX_SLICES: usize = 16;

#[derive(Default)]
pub(super) struct Down {
    queue: DownQueue,
    state: DownState,
    /// Bytes that came on the stream.
    received: u64,
    /// The last frame was empty. END_STREAM comes in an empty frame, and h2 forgets it when the
    /// connection ends before the relay has asked for it.
    empty_frame: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum DownState {
    /// The stream goes on.
    #[default]
    Open,
    /// END_STREAM has come; there may be bytes to write before the FIN.
    StreamEnded,
    /// The FIN was sent.
    Done,
    /// The socket takes no more bytes. The relay discards what comes; it will reset the sender.
    Failed,
}

impl Down {
    /// Whether the socket takes no more bytes.
    pub(super) fn failed(&self) -> bool {
        self.state == DownState::Failed
    }

    /// Bytes that came on the stream and are not written to the socket.
    pub(super) fn queued(&self) -> usize {
        self.queue.len
    }

    /// Whether the socket has every byte and the FIN.
    pub(super) fn fin_sent(&self) -> bool {
        self.state == DownState::Done
    }

    /// Discards the bytes that came and are not written.
    pub(super) fn discard(&mut self, stream: &mut Stream) {
        stream.release(self.queue.len);
        self.queue = DownQueue::default();
    }

    /// Reads everything that came, and discards it.
    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        mut lane: Option<&mut Lane>,
    ) -> Result<(), Cut> {
        let taken = self.take(cx, stream, lane.as_deref_mut());
        self.discard(stream);
        if let Some(lane) = lane
            && lane.poll_peer_offset(cx).is_ready()
        {
            lane.discard(cx);
        }
        taken
    }

    /// Whether the other half has ended this direction with END_STREAM.
    pub(super) fn ended_by_stream(&self) -> bool {
        matches!(self.state, DownState::StreamEnded | DownState::Done)
    }

    /// Ready when the FIN was sent. Never ready with [`Cut::Socket`]: see [`Down::failed`].
    pub(super) fn poll<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
        stream: &mut Stream,
        mut lane: Option<&mut Lane>,
        count: &AtomicU64,
    ) -> Poll<Result<(), Cut>> {
        self.take(cx, stream, lane.as_deref_mut())?;
        self.write(cx, local, stream, lane, count).map(Ok)
    }

    /// As [`Down::poll`], for a stream that was reset or lost. Ready when all that came is written,
    /// or the socket failed.
    pub(super) fn poll_rest<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
        stream: &mut Stream,
        mut lane: Option<&mut Lane>,
        count: &AtomicU64,
    ) -> Poll<()> {
        let _ = self.take(cx, stream, lane.as_deref_mut());
        if self.state == DownState::Failed {
            return Poll::Ready(());
        }
        let written = self.write(cx, local, stream, lane.as_deref_mut(), count);
        // Bytes that were sent on a lane before the reset can be read up to the lane's end.
        let all_has_come = lane.is_none_or(|lane| lane.has_ended() && lane.down_held() == 0);
        let is_empty = self.queue.is_empty() && all_has_come;
        let is_written = is_empty && local.poll_flush(cx).is_ready();
        if is_written && self.state != DownState::StreamEnded || self.failed() {
            return Poll::Ready(());
        }
        written
    }

    /// Moves everything that came on the stream to the queue.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        mut lane: Option<&mut Lane>,
    ) -> Result<(), Cut> {
        if let Some(lane) = lane.as_deref_mut()
            && lane.poll_peer_offset(cx).is_pending()
        {
            return Ok(());
        }
        loop {
            match self.state {
                DownState::StreamEnded | DownState::Done => return Ok(()),
                DownState::Open | DownState::Failed => {}
            }
            match stream.poll_data(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(_))) if self.failed() => {}
                Poll::Ready(Ok(Some(bytes))) => {
                    self.empty_frame = bytes.is_empty();
                    let mut bytes = bytes;
                    if let Some(lane) = lane.as_deref_mut() {
                        let rest = lane.rest_of_stream(self.received);
                        let last_frame = bytes.split_off(bytes.len().min(rest));
                        lane.push_last_frame(&last_frame)?;
                    }
                    self.received += bytes.len() as u64;
                    self.queue.push(bytes);
                }
                Poll::Ready(Ok(None)) if self.failed() => return Ok(()),
                Poll::Ready(Ok(None)) => self.end(lane.as_deref_mut())?,
                Poll::Ready(Err(cut)) => {
                    // A half that leaves has ended its direction before.
                    let last_frame = self.empty_frame
                        || lane
                            .as_ref()
                            .is_some_and(|lane| lane.down_count().is_some());
                    let ended = cut == Cut::Gone || cut == Cut::Link && last_frame;
                    if ended && !self.failed() {
                        self.end(lane.as_deref_mut())?;
                    }
                    return Err(cut);
                }
            }
        }
    }

    /// Notes END_STREAM.
    fn end(&mut self, lane: Option<&mut Lane>) -> Result<(), Cut> {
        if let Some(lane) = lane {
            lane.end_of_stream(self.received)?;
        }
        self.state = DownState::StreamEnded;
        Ok(())
    }

    fn fail(&mut self) {
        self.state = DownState::Failed;
        self.queue = DownQueue::default();
    }

    fn write<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
        stream: &mut Stream,
        mut lane: Option<&mut Lane>,
        count: &AtomicU64,
    ) -> Poll<()> {
        if matches!(self.state, DownState::Open | DownState::StreamEnded)
            && let Poll::Ready(Err(_)) = local.poll_flush(cx)
        {
            self.fail();
        }
        let mut budget = POLL_BUDGET;
        loop {
            let on_lane = lane
                .as_deref_mut()
                .filter(|lane| self.queue.is_empty() && lane.rest_of_stream(self.received) == 0);
            match (self.state, on_lane) {
                (DownState::Open | DownState::StreamEnded, Some(lane))
                    if !lane.down_is_complete() =>
                {
                    if budget == 0 {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    match ready!(lane.poll_down(cx, local)) {
                        Ok(PumpStep::Moved { given, .. }) => {
                            count.fetch_add(given as u64, Ordering::Relaxed);
                            budget = budget.saturating_sub(given.max(1));
                        }
                        Ok(PumpStep::End) => {}
                        Err(PumpError::Source | PumpError::Sink) => self.state = DownState::Failed,
                    }
                    continue;
                }
                _ => {}
            }
            match self.state {
                DownState::Done => return Poll::Ready(()),
                DownState::Failed => return Poll::Pending,
                DownState::Open if self.queue.is_empty() => return Poll::Pending,
                DownState::StreamEnded if self.queue.is_empty() => {
                    let shut = ready!(local.poll_shutdown(cx));
                    self.state = if shut.is_ok() {
                        DownState::Done
                    } else {
                        DownState::Failed
                    };
                }
                DownState::Open | DownState::StreamEnded => {
                    match ready!(self.queue.poll_write(cx, local)) {
                        Ok(written) if written > 0 => {
                            count.fetch_add(written as u64, Ordering::Relaxed);
                            stream.release(written);
                        }
                        _ => self.fail(),
                    }
                }
            }
        }
    }
}

/// Bytes that wait for the socket. The flow's window bounds them.
#[derive(Default)]
struct DownQueue {
    chunks: VecDeque<Bytes>,
    /// Small chunks, which follow all of `chunks`.
    tail: BytesMut,
    /// Bytes in `chunks` and `tail` together.
    len: usize,
    /// The relay has written to the socket, so the runtime knows whether it has room.
    has_begun: bool,
}

impl DownQueue {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let was_empty = self.is_empty();
        self.len += bytes.len();
        if bytes.len() <= MAX_COPIED_CHUNK && !was_empty {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        self.close_tail();
        self.chunks.push_back(bytes);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks
                .push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn poll_write<L: LocalStream>(
        &mut self,
        cx: &mut Context<'_>,
        local: &mut L,
    ) -> Poll<std::io::Result<usize>> {
        // While chunks wait, the tail takes further small ones.
        if self.chunks.is_empty() {
            self.close_tail();
        }
        if !std::mem::replace(&mut self.has_begun, true)
            && let Some(written) = self.write_first(local)?
        {
            self.advance(written);
            return Poll::Ready(Ok(written));
        }
        let written = if self.chunks.len() == 1 {
            let chunk = self.chunks.front().map_or(&[][..], |chunk| chunk);
            ready!(local.poll_write(cx, &[IoSlice::new(chunk)]))?
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
            }
            ready!(local.poll_write(cx, &slices))?
        };
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Asks the kernel: the runtime may not know yet that the socket is connected.
    fn write_first<L: LocalStream>(&self, local: &mut L) -> std::io::Result<Option<usize>> {
        match self.chunks.front() {
            Some(chunk) => local.try_write(chunk),
            None => Ok(None),
        }
    }

    fn advance(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
        // The queue of an idle flow keeps no memory.
        if self.chunks.capacity() > MAX_SLICES {
            self.chunks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_are_put_together_in_order() {
        let mut queue = DownQueue::default();
        let large = Bytes::from(vec![b'L'; MAX_COPIED_CHUNK + 1]);
        let mut expected = Vec::new();
        for piece in [b"ab".as_slice(), b"c", b"d", &large, b"e", b"f"] {
            queue.push(Bytes::copy_from_slice(piece));
            expected.extend_from_slice(piece);
        }
        queue.close_tail();
        assert_eq!(queue.chunks.len(), 4, "ab, cd, L, ef");
        assert_eq!(
            queue.chunks.iter().flatten().copied().collect::<Vec<_>>(),
            expected
        );
        queue.advance(3);
        assert_eq!(queue.chunks.front().unwrap(), "d");
        queue.advance(expected.len() - 3);
        assert!(queue.is_empty());
    }
}
