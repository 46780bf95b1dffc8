//! TCP connections of the app that wait for a decision, and accepted ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use odyn_proto::OrigDst;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::engine::Shared;
use super::table::{Id, Refusal};

/// How long the handshake with the app may take. The app's kernel repeats lost packets, and answers
/// at once when the socket is gone.
const HANDSHAKE: Duration = Duration::from_secs(75);

/// A connection whose SYN is held. Dropping it without an answer resets it.
pub struct Held {
    shared: Arc<Shared>,
    id: Id,
    original: OrigDst,
}

/// A connection of the app, as a socket. Its flow stays in the table while this lives.
pub struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// The caller keeps this as long as the socket is in use.
    pub serving: Serving,
}

/// Keeps a flow in the table.
pub struct Serving {
    shared: Arc<Shared>,
    id: Id,
}

impl Held {
    pub(super) fn new(shared: Arc<Shared>, id: Id, original: OrigDst) -> Self {
        Self {
            shared,
            id,
            original,
        }
    }

    /// The destination that the app connects to.
    pub fn original(&self) -> OrigDst {
        self.original
    }

    /// Completes the handshake. Returns `None` when the app has given up the connection.
    pub async fn accept(self) -> Option<Accepted> {
        let serving = Serving {
            shared: Arc::clone(&self.shared),
            id: self.id,
        };
        let (sender, receiver) = oneshot::channel();
        self.shared.open(self.id, Some(sender))?;
        let stream = timeout(HANDSHAKE, receiver).await.ok()?.ok()?;
        Some(Accepted { stream, serving })
    }

    /// Refuses the connection.
    pub fn refuse(self, refusal: Refusal) {
        self.shared.refuse(self.id, refusal, Instant::now());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // This has no effect on a connection that is not held any more.
        self.shared.refuse(self.id, Refusal::Reset, Instant::now());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shared.ended(self.id);
    }
}
