//! Payload of DATA frames that reports when h2 is done with it.
//!
//! h2 drops a stream's queued frames as soon as the stream is reset. A reset that follows the last
//! bytes must therefore wait until they have left h2's queue: each chunk counts itself until it is
//! dropped.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;

/// Counts the chunks of one flow that are still in h2.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    lost: AtomicBool,
    waiter: AtomicWaker,
}

impl InFlight {
    /// Wraps `data`; the chunk counts until h2 has written or dropped it.
    pub(crate) fn chunk(self: &Arc<Self>, data: Bytes) -> Chunk {
        self.count.fetch_add(1, Ordering::Relaxed);
        Chunk {
            data,
            flow: Arc::clone(self),
        }
    }

    /// Ready when h2 holds no chunk of the flow.
    pub(crate) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Poll::Ready(());
        }
        self.waiter.register(cx.waker());
        if self.count.load(Ordering::Acquire) == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Whether h2 dropped bytes instead of writing them.
    pub(crate) fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Waits until h2 holds no chunk of the flow.
    pub(crate) async fn empty(&self) {
        poll_fn(|cx| self.poll_empty(cx)).await;
    }
}

/// Bytes that are queued in h2.
#[derive(Debug)]
pub(crate) struct Chunk {
    data: Bytes,
    flow: Arc<InFlight>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.data.has_remaining() {
            self.flow.lost.store(true, Ordering::Release);
        }
        if self.flow.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.flow.waiter.wake();
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn empty_waits_for_the_last_chunk() {
        let flow = Arc::new(InFlight::default());
        flow.empty().await;
        let one = flow.chunk(Bytes::from_static(b"a"));
        let two = flow.chunk(Bytes::new());
        let mut waiting = poller(&flow);
        assert!(!waiting());
        drop(two);
        assert!(!waiting() && !flow.lost());
        drop(one);
        assert!(waiting() && flow.lost());
    }

    fn poller(flow: &Arc<InFlight>) -> impl FnMut() -> bool + use<> {
        let flow = Arc::clone(flow);
        move || {
            flow.poll_empty(&mut Context::from_waker(std::task::Waker::noop()))
                .is_ready()
        }
    }
}
