//! Moves bytes between a TCP socket and a flow of the link.
//!
//! ```text
//!   socket ──read──▶ chunk ──▶ h2 send queue ──▶ link        up
//!   socket ◀──write── queue ◀── h2 receive queue ◀── link    down
//! ```
//!
//! Up reads only what the flow's window has room for. Down takes whatever came, at once: so it
//! sees the end or reset behind it even when the socket does not take a byte, and the bytes are
//! bounded by the window, which is opened again only after they were written.
//!
//! How a flow ends:
//!
//! | what happened | what the other side gets |
//! |---|---|
//! | socket: FIN | END_STREAM behind the last byte; the other direction goes on |
//! | stream: END_STREAM | FIN behind the last byte; the other direction goes on |
//! | socket: RST, or a write to it failed | the bytes that had been read, then RST_STREAM |
//! | stream: RST_STREAM | the bytes (and FIN) that had come, then RST |
//! | link lost | RST at once; but what had ended with END_STREAM is delivered before |

mod down;
mod up;

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use self::{down::Down, up::Up};
use crate::{
    outq::unacknowledged,
    stream::{Cut, Stream},
};

/// Bytes moved by a relay, readable while it runs.
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

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// Both directions ended with a FIN.
    Closed,
    /// The TCP socket given to [`relay`] was reset by its peer.
    ResetBySocket,
    /// The other half of the link reset the flow.
    ResetByPeer,
    /// The connection of the link ended.
    LinkLost,
}

/// Pause between looks at the send queue of a socket that is to be reset.
const ACK_PAUSE: Duration = Duration::from_millis(5);

/// Moves bytes both ways until both directions have ended, or either side gave up.
///
/// `counters` counts what was moved. The socket is closed on return; it is reset when the flow
/// did not end with [`End::Closed`].
pub async fn relay(tcp: TcpStream, stream: Stream, counters: Arc<Counters>) -> End {
    // Small writes are the sender's choice, already made once.
    let _ = tcp.set_nodelay(true);
    let mut flow = Flow {
        up: Up::new(&stream.tuning),
        down: Down::default(),
        tcp,
        stream,
        counters,
    };
    let result = poll_fn(|cx| flow.poll(cx)).await;
    match result {
        Ok(()) => flow.flush().await,
        Err(Cut::Socket) => flow.reset_stream().await,
        Err(Cut::Peer) => flow.reset_socket().await,
        Err(Cut::Link) => flow.lose_link().await,
    }
}

struct Flow {
    up: Up,
    down: Down,
    tcp: TcpStream,
    stream: Stream,
    counters: Arc<Counters>,
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let down = self
            .down
            .poll(cx, &mut self.tcp, &mut self.stream, &self.counters.down)?;
        // A socket that can't be written to may still hold bytes to be read, from before it was
        // reset: they are read to their end.
        self.up.socket_is_dead = self.down.failed();
        let up = self
            .up
            .poll(cx, &mut self.tcp, &mut self.stream, &self.counters.up)?;
        if self.down.ended_by_stream()
            && let Poll::Ready(cut) = self.stream.poll_cut(cx)
        {
            // Nothing more comes on the stream, so only here a reset can be seen.
            return Poll::Ready(Err(cut));
        }
        match (up.is_ready(), down.is_ready()) {
            (true, true) => Poll::Ready(Ok(())),
            (true, false) => self.up.poll_reset(cx, &self.tcp),
            (false, _) => Poll::Pending,
        }
    }

    /// Both directions have ended: the last bytes may still be in h2.
    async fn flush(mut self) -> End {
        self.stream.in_flight.empty().await;
        if !self.stream.in_flight.lost() {
            return End::Closed;
        }
        match poll_fn(|cx| Poll::Ready(self.stream.poll_cut(cx))).await {
            Poll::Ready(Cut::Peer) => End::ResetByPeer,
            _ => End::LinkLost,
        }
    }

    /// The socket is gone: the other half gets what had been read, then the reset.
    async fn reset_stream(mut self) -> End {
        let grace = self.stream.tuning.reset_grace;
        let _ = timeout(grace, self.stream.in_flight.empty()).await;
        self.stream.reset();
        End::ResetBySocket
    }

    /// The other half gave up: the socket gets what had come, then the reset.
    async fn reset_socket(mut self) -> End {
        let grace = self.stream.tuning.reset_grace;
        let _ = timeout(grace, self.deliver()).await;
        let _ = self.tcp.set_zero_linger();
        End::ResetByPeer
    }

    /// The connection is gone. What had properly ended is still delivered.
    async fn lose_link(mut self) -> End {
        if self.down.ended_by_stream() {
            let grace = self.stream.tuning.reset_grace;
            let _ = timeout(grace, self.deliver()).await;
        }
        let _ = self.tcp.set_zero_linger();
        End::LinkLost
    }

    /// Writes all that came to the socket and waits until its peer's kernel has it: a reset throws
    /// away what is still in the send queue.
    async fn deliver(&mut self) {
        let Self {
            down,
            tcp,
            stream,
            counters,
            ..
        } = self;
        poll_fn(|cx| down.poll_rest(cx, tcp, stream, &counters.down)).await;
        // A socket that was reset has no peer any more (ENOTCONN), but keeps its count.
        while tcp.peer_addr().is_ok() && unacknowledged(tcp).is_ok_and(|bytes| bytes > 0) {
            sleep(ACK_PAUSE).await;
        }
    }
}
