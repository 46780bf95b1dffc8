//! How a client's TLS session ended, as far as the relay does not know it.

use std::io;
use std::sync::OnceLock;

/// Why a session was cut, by us.
#[derive(Debug)]
pub(in crate::ingress) enum TlsFailure {
    /// There was no session.
    Handshake(io::Error),
    /// The app took no connection.
    NoApp(io::Error),
    /// The client's bytes ended without close_notify.
    Truncated,
}

/// Filled while the relay has the session, and read behind its end.
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

    /// The first one counts: the others follow from it.
    pub(super) fn note_failure(&self, failure: TlsFailure) {
        let _ = self.failure.set(failure);
    }
}
