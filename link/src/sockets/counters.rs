//! Bytes moved between a socket and the link.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes that a relay has moved; readable while it runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes read from the socket and handed to the link.
    pub up: AtomicU64,
    /// Bytes that came from the link and were written to the socket.
    pub down: AtomicU64,
}

impl Counters {
    /// Bytes up and down so far.
    pub fn get(&self) -> (u64, u64) {
        (
            self.up.load(Ordering::Relaxed),
            self.down.load(Ordering::Relaxed),
        )
    }
}
