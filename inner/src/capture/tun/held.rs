//! A connection that waits for its answer, and one that got it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use odyn_proto::OrigDst;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::engine::Shared;
use super::table::{Id, Refusal};

/// How long the handshake with the program may take. Its kernel sends what gets lost again; one
/// whose socket is gone says so at once.
const HANDSHAKE: Duration = Duration::from_secs(75);

/// A connection whose SYN is held. Dropped without an answer, it is reset.
pub struct Held {
    shared: Arc<Shared>,
    id: Id,
    original: OrigDst,
}

/// A connection of the program, as a socket; the flow is remembered as served while it lives.
pub struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// To be kept as long as the socket is in use.
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

    /// Where the program connects to.
    pub fn original(&self) -> OrigDst {
        self.original
    }

    /// Completes the handshake. `None`: the program does not want the connection any more.
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

    /// Refuses it.
    pub fn refuse(self, refusal: Refusal) {
        self.shared.refuse(self.id, refusal, Instant::now());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Does nothing to a connection that is not held any more.
        self.shared.refuse(self.id, Refusal::Reset, Instant::now());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shared.ended(self.id);
    }
}
