//! Reports how a client's TLS session ended, where the relay cannot know.

use std::io;
use std::sync::OnceLock;

/// The reason why this side cut a session.
#[derive(Debug)]
pub(in crate::ingress) enum TlsFailure {
    /// The handshake failed.
    Handshake(io::Error),
    /// The app took no connection.
    NoApp(io::Error),
    /// The client's bytes ended without close_notify.
    Truncated,
}

/// Filled by the session, and read after the relay has ended.
#[derive(Debug, Default)]
pub(in crate::ingress) struct TlsReport {
    connected: OnceLock<()>,
    failure: OnceLock<TlsFailure>,
}

impl TlsReport {
    /// Whether the app was reached.
    pub(in crate::ingress) fn is_connected(&self) -> bool {
        self.connected.get().is_some()
    }

    pub(in crate::ingress) fn failure(&self) -> Option<&TlsFailure> {
        self.failure.get()
    }

    pub(super) fn note_connected(&self) {
        self.connected.get_or_init(|| ());
    }

    /// Keeps the first failure: later ones follow from it.
    pub(super) fn note_failure(&self, failure: TlsFailure) {
        let _ = self.failure.set(failure);
    }
}
