//! Collects the small frames of one poll of h2 in one write, as TCP_CORK does.
//!
//! h2 writes every frame with 256 bytes of payload or more by itself. Where many flows have an
//! answer each, each frame costs a system call, and mostly a wake-up of the peer. So while h2 is
//! polled, [`Transport`](crate::transport::stream::Transport) keeps small writes, and the
//! connection's driver has them written at the end of the poll.
//!
//! For [`InFlight`](crate::http2::chunk::InFlight), kept bytes count as written, since they have
//! left h2. Each poll ends with an attempt to write them, and later writes follow behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Largest write that is kept. A copy of this size takes a fraction of a system call.
const MAX_KEPT_WRITE: usize = 8 * 1024;

/// At this size the buffer is written before the end of the poll.
const MAX_KEPT: usize = 64 * 1024;

/// Switches a transport between keeping small writes and passing them on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cork(Arc<CorkState>);

/// Only the task that drives the connection uses these; they are atomic so that it may change
/// threads.
#[derive(Debug, Default)]
struct CorkState {
    is_in: AtomicBool,
    /// The buffer holds bytes.
    keeps: AtomicBool,
}

impl Cork {
    /// Polls h2 by `poll`, with the transport corked, and has kept bytes written afterwards.
    pub(crate) fn turn<T>(
        &self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.0.is_in.store(true, Ordering::Relaxed);
        let polled = poll(cx);
        self.0.is_in.store(false, Ordering::Relaxed);
        if polled.is_pending() && self.0.keeps.load(Ordering::Relaxed) {
            // Each poll of h2 ends with a flush of the transport; h2 has no other way to ask for
            // one.
            return poll(cx);
        }
        polled
    }
}

/// Small writes that a transport keeps.
#[derive(Debug, Default)]
pub(crate) struct CorkBuffer {
    cork: Cork,
    bytes: Vec<u8>,
    written: usize,
}

impl CorkBuffer {
    pub(crate) fn cork(&self) -> Cork {
        self.cork.clone()
    }

    /// Whether a write of `count` bytes is to be kept.
    pub(crate) fn takes(&self, count: usize) -> bool {
        count <= MAX_KEPT_WRITE && self.is_corked()
    }

    pub(crate) fn is_corked(&self) -> bool {
        self.cork.0.is_in.load(Ordering::Relaxed)
    }

    /// Whether the buffer has to be written before it takes more.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_KEPT
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.cork.0.keeps.store(true, Ordering::Relaxed);
    }

    /// Bytes that are still to be written.
    pub(crate) fn rest(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    pub(crate) fn advance(&mut self, written: usize) {
        self.written += written;
        if self.written >= self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            self.cork.0.keeps.store(false, Ordering::Relaxed);
        }
    }
}
