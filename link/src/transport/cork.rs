//! Small frames of one turn, in one write.
//!
//! h2 gives every frame with 256 bytes of payload or more to the transport by itself. Where many
//! flows have an answer each, that is a system call, and mostly a wake-up of the other half, for
//! each of them. So while h2 has its turn, [`Transport`](crate::transport::stream::Transport) keeps what is
//! small, and whoever drives the connection has it written at the end of the turn.
//!
//! What is kept has left h2: to those who wait for that ([`InFlight`](crate::http2::chunk::InFlight)), it
//! is written. No turn ends without an attempt to write it, and whatever follows on the connection
//! is written behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Largest write that is kept: to copy as much takes a fraction of a system call.
const MAX_KEPT_WRITE: usize = 8 * 1024;

/// When this is reached, it is written without waiting for the end of the turn.
const MAX_KEPT: usize = 64 * 1024;

/// Says to a transport whether small writes are kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cork(Arc<CorkState>);

/// Both are for the task that drives the connection alone, and atomic so that it may be moved.
#[derive(Debug, Default)]
struct CorkState {
    is_in: AtomicBool,
    /// Something is kept.
    keeps: AtomicBool,
}

impl Cork {
    /// Gives h2 a turn by `poll`, which polls a connection over the transport of this cork.
    pub(crate) fn turn<T>(
        &self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.0.is_in.store(true, Ordering::Relaxed);
        let polled = poll(cx);
        self.0.is_in.store(false, Ordering::Relaxed);
        if polled.is_pending() && self.0.keeps.load(Ordering::Relaxed) {
            // Each poll of h2 ends with a flush of the transport: there is no other way to it.
            return poll(cx);
        }
        polled
    }
}

/// What a transport keeps.
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

    /// Whether a write of so many bytes is kept.
    pub(crate) fn takes(&self, count: usize) -> bool {
        count <= MAX_KEPT_WRITE && self.is_corked()
    }

    pub(crate) fn is_corked(&self) -> bool {
        self.cork.0.is_in.load(Ordering::Relaxed)
    }

    /// Whether it has to be written before more is kept.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_KEPT
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.cork.0.keeps.store(true, Ordering::Relaxed);
    }

    /// What is to be written.
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
