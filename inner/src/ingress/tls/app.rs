//! The app behind TLS: the relay writes ciphertext into it and reads ciphertext from it.
//!
//! ```text
//!   link ◀── relay ──▶ TlsApp ◀── plaintext ──▶ the app's socket
//! ```
//!
//! | event | what the other side gets |
//! |---|---|
//! | client: close_notify | FIN after the last byte; the other direction goes on |
//! | client: FIN without close_notify, or bytes that are no TLS | the bytes received so far, then RST |
//! | client: RST | the bytes received so far, then RST |
//! | app: FIN | close_notify and FIN after the last byte; the other direction goes on |
//! | app: RST | the bytes read so far, then RST, and no close_notify |
//!
//! If the client closes its direction without close_notify after it has got the app's whole answer
//! and close_notify, only the app's socket is reset and the flow ends in order.
//!
//! Memory is bounded: one TLS record (16 KiB) in each direction, and the handshake's messages.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{io, mem};

use odyn_link::LocalStream;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::ingress::ports::Port;
use crate::ingress::proxy_header::ClientHeader;
use crate::ingress::tls::report::{TlsFailure, TlsReport};

/// Bytes of one read from the app: the content of one record.
const RECORD_BYTES: usize = 16 * 1024;
/// How long the app may take to read what came before a reset.
const RESET_GRACE: Duration = Duration::from_secs(10);
/// Interval between checks of a send queue.
const ACK_INTERVAL: Duration = Duration::from_millis(5);

/// A client's TLS session and the app's socket behind it.
// Boxed: a session is large, and a flow is moved from one future to the next.
pub(in crate::ingress) struct TlsApp(Box<TlsSession>);

struct TlsSession {
    tls: ServerConnection,
    stage: Stage,
    /// The app's port and the client's header, used when the handshake is done.
    port: Arc<Port>,
    header: ClientHeader,
    down: ClientDirection,
    up: AppDirection,
    /// A reset of the app's socket that waits for its send queue.
    reset: Option<PendingReset>,
    /// Whether the client sent bytes that are no TLS.
    is_broken: bool,
    /// Whether the flow is to be reset: reads fail.
    is_cut: bool,
    report: Arc<TlsReport>,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

enum Stage {
    /// The handshake, with its timer.
    Handshake(Pin<Box<Sleep>>),
    Connecting(Connecting),
    Open(TcpStream),
    /// The handshake failed, or the app took no connection.
    Failed,
}

/// The state of the direction from the client to the app.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientDirection {
    Open,
    /// close_notify has come, and the app got the FIN.
    Ended,
    /// The app reads no more.
    Failed,
}

/// The state of the direction from the app to the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AppDirection {
    Open,
    /// The app's FIN has come; the relay may still have to read close_notify.
    Ending,
    /// The relay has read everything.
    Ended,
    /// The app has reset its connection.
    Reset,
}

/// A reset that waits until the peer has acknowledged all that was written.
struct PendingReset {
    until: Instant,
    next_look: Pin<Box<Sleep>>,
}

impl TlsApp {
    /// Starts a session. The client has `limit` for its handshake; then the app is connected.
    ///
    /// # Errors
    /// rustls makes no session with this configuration.
    pub(in crate::ingress) fn new(
        config: Arc<ServerConfig>,
        limit: Duration,
        port: Arc<Port>,
        header: ClientHeader,
    ) -> Result<(Self, Arc<TlsReport>), rustls::Error> {
        let report = Arc::<TlsReport>::default();
        let session = TlsSession {
            tls: ServerConnection::new(config)?,
            stage: Stage::Handshake(Box::pin(sleep(limit))),
            port,
            header,
            down: ClientDirection::Open,
            up: AppDirection::Open,
            reset: None,
            is_broken: false,
            is_cut: false,
            report: Arc::clone(&report),
        };
        Ok((Self(Box::new(session)), report))
    }
}

impl TlsSession {
    /// Ready when the app is connected. Until the handshake is done, checks its time limit.
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.stage {
                Stage::Handshake(limit) => {
                    ready!(limit.as_mut().poll(cx));
                    self.fail(TlsFailure::Handshake(io::ErrorKind::TimedOut.into()));
                }
                Stage::Connecting(connection) => match ready!(connection.as_mut().poll(cx)) {
                    Ok(mut app) => {
                        app.prepare();
                        self.report.note_connected();
                        self.stage = Stage::Open(app);
                    }
                    Err(error) => self.fail(TlsFailure::NoApp(error)),
                },
                Stage::Open(_) => return Poll::Ready(Ok(())),
                Stage::Failed => return Poll::Ready(Err(reset_error())),
            }
        }
    }

    fn fail(&mut self, failure: TlsFailure) {
        self.report.note_failure(failure);
        self.stage = Stage::Failed;
    }

    /// Passes some of the client's bytes to the session. `bytes` is not empty.
    fn take(&mut self, bytes: &mut &[u8]) {
        let taken = match self.tls.read_tls(bytes) {
            Ok(0) => {
                // Bytes after close_notify have no meaning.
                *bytes = &[];
                Ok(())
            }
            Ok(_) => match self.tls.process_new_packets() {
                Ok(_) => Ok(()),
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            },
            Err(error) => Err(error),
        };
        let is_shaking_hands = matches!(self.stage, Stage::Handshake(_));
        match taken {
            Err(error) if is_shaking_hands => self.fail(TlsFailure::Handshake(error)),
            Err(_) => self.is_broken = true,
            Ok(()) if is_shaking_hands && !self.tls.is_handshaking() => {
                self.stage = Stage::Connecting(self.connect());
            }
            Ok(()) => {}
        }
    }

    fn connect(&self) -> Connecting {
        let (port, header) = (Arc::clone(&self.port), self.header);
        let alpn = self.tls.alpn_protocol().map(<[u8]>::to_vec);
        let name = self.tls.server_name().map(str::to_owned);
        Box::pin(async move { port.connect(header, alpn.as_deref(), name.as_deref()).await })
    }

    /// Writes the client's plaintext to the app, and a FIN after its close_notify.
    fn poll_give(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stage::Open(app) = &mut self.stage else {
            return Poll::Ready(Ok(()));
        };
        loop {
            match self.down {
                ClientDirection::Open => {}
                ClientDirection::Ended => return Poll::Ready(Ok(())),
                ClientDirection::Failed => return Poll::Ready(Err(reset_error())),
            }
            let Ok(plain) = self.tls.reader().into_first_chunk() else {
                return Poll::Ready(Ok(()));
            };
            if plain.is_empty() {
                self.down = match ready!(LocalStream::poll_shutdown(app, cx)) {
                    Ok(()) => ClientDirection::Ended,
                    Err(_) => ClientDirection::Failed,
                };
                continue;
            }
            match ready!(LocalStream::poll_write(app, cx, &[IoSlice::new(plain)])) {
                Ok(count) if count > 0 => io::BufRead::consume(&mut self.tls.reader(), count),
                _ => self.down = ClientDirection::Failed,
            }
        }
    }

    /// Ready when a close of the app's socket will reset it after all that was written.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Stage::Open(app) = &mut self.stage else {
            return Poll::Ready(());
        };
        let reset = self.reset.get_or_insert_with(|| PendingReset {
            until: Instant::now() + RESET_GRACE,
            next_look: Box::pin(sleep(ACK_INTERVAL)),
        });
        while app.unacknowledged() > 0 && Instant::now() < reset.until {
            ready!(reset.next_look.as_mut().poll(cx));
            reset
                .next_look
                .as_mut()
                .reset(Instant::now() + ACK_INTERVAL);
        }
        app.reset_on_close();
        Poll::Ready(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(connected) = self.poll_connected(cx) {
            connected?;
        }
        let given = ready!(self.poll_give(cx));
        if !self.is_broken {
            return Poll::Ready(given);
        }
        if given.is_ok() {
            ready!(self.poll_reset(cx));
        }
        self.is_cut = true;
        Poll::Ready(Err(reset_error()))
    }

    /// Ready with `true` when there is more ciphertext, and with `false` after the last.
    fn poll_encrypt(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let app = match (self.up, &mut self.stage) {
            (AppDirection::Ending | AppDirection::Ended, _) => return Poll::Ready(Ok(false)),
            (AppDirection::Reset, _) | (_, Stage::Failed) => {
                return Poll::Ready(Err(reset_error()));
            }
            _ if self.is_cut => return Poll::Ready(Err(reset_error())),
            // A broken session encrypts nothing more.
            _ if self.is_broken => return Poll::Pending,
            (_, Stage::Handshake(_) | Stage::Connecting(_)) => return Poll::Pending,
            (AppDirection::Open, Stage::Open(app)) => app,
        };
        let mut space = [MaybeUninit::uninit(); RECORD_BYTES];
        let mut plain = ReadBuf::uninit(&mut space);
        let read = ready!(LocalStream::poll_read(app, cx, &mut plain));
        let is_end = plain.filled().is_empty();
        if read.is_err() || is_end && self.down == ClientDirection::Failed {
            // Sends no close_notify, which would make the reset look like an end.
            self.up = AppDirection::Reset;
            return Poll::Ready(Err(reset_error()));
        }
        if is_end {
            self.tls.send_close_notify();
            self.up = AppDirection::Ending;
        } else {
            io::Write::write_all(&mut self.tls.writer(), plain.filled())?;
        }
        Poll::Ready(Ok(true))
    }
}

impl LocalStream for TlsApp {
    /// Does nothing here: the app's socket is prepared when it is connected.
    fn prepare(&mut self) {}

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = &mut *self.0;
        if session.tls.wants_write() || session.is_cut || session.up != AppDirection::Open {
            return Poll::Ready(Ok(()));
        }
        match &mut session.stage {
            Stage::Failed => Poll::Ready(Ok(())),
            Stage::Open(app) if !session.is_broken => LocalStream::poll_read_ready(app, cx),
            Stage::Handshake(_) | Stage::Connecting(_) | Stage::Open(_) => Poll::Pending,
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let session = &mut *self.0;
        let before = buffer.filled().len();
        loop {
            while session.tls.wants_write() && buffer.remaining() > 0 {
                session.tls.write_tls(&mut BufferWriter(buffer))?;
            }
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let more = session.poll_encrypt(cx);
            if matches!(more, Poll::Ready(Ok(true))) {
                continue;
            }
            if buffer.filled().len() > before {
                // The next read reports the end.
                return Poll::Ready(Ok(()));
            }
            ready!(more)?;
            session.up = AppDirection::Ended;
            return Poll::Ready(Ok(()));
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let session = &mut *self.0;
        let Some(chunk) = chunks.iter().find(|chunk| !chunk.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        let mut rest: &[u8] = chunk;
        loop {
            let flushed = session.poll_flush(cx);
            let taken = chunk.len() - rest.len();
            if let Poll::Ready(Err(error)) = flushed {
                if taken == 0 {
                    return Poll::Ready(Err(error));
                }
                // The relay counts these bytes first, and gets the error from the next call.
                cx.waker().wake_by_ref();
                return Poll::Ready(Ok(taken));
            }
            let has_to_wait = flushed.is_pending() || matches!(session.stage, Stage::Connecting(_));
            match (has_to_wait || rest.is_empty(), taken) {
                (true, 0) => return Poll::Pending,
                (true, taken) => return Poll::Ready(Ok(taken)),
                (false, _) => session.take(&mut rest),
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    /// Handles the client's FIN. Without a close_notify before it, the bytes may have been cut off.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = &mut *self.0;
        if matches!(session.stage, Stage::Handshake(_)) {
            let error = io::ErrorKind::UnexpectedEof.into();
            session.fail(TlsFailure::Handshake(error));
        }
        ready!(session.poll_connected(cx))?;
        ready!(session.poll_flush(cx))?;
        if session.down == ClientDirection::Ended {
            return Poll::Ready(Ok(()));
        }
        session.report.note_failure(TlsFailure::Truncated);
        ready!(session.poll_reset(cx));
        if session.up == AppDirection::Ended {
            return Poll::Ready(Ok(()));
        }
        session.is_cut = true;
        Poll::Ready(Err(reset_error()))
    }

    fn app_has_ended(&mut self) {
        let refused = io::ErrorKind::ConnectionRefused.into();
        let session = &mut *self.0;
        match session.stage {
            Stage::Handshake(_) => session.fail(TlsFailure::Handshake(refused)),
            Stage::Connecting(_) => session.fail(TlsFailure::NoApp(refused)),
            // An app that has ended reads nothing more.
            Stage::Open(_) => session.is_cut |= session.is_broken || session.reset.is_some(),
            Stage::Failed => {}
        }
    }

    fn reset_on_close(&mut self) {
        if let Stage::Open(app) = &mut self.0.stage {
            app.reset_on_close();
        }
    }

    fn close_in_order(&mut self) {
        if let Stage::Open(app) = &mut self.0.stage {
            app.close_in_order();
        }
    }

    fn has_failed(&self) -> bool {
        match &self.0.stage {
            Stage::Handshake(_) | Stage::Connecting(_) => false,
            Stage::Failed => true,
            Stage::Open(_) if self.0.is_cut => true,
            // The client may be slow to see that both directions have ended.
            Stage::Open(app) => !self.0.has_ended() && app.has_failed(),
        }
    }

    fn is_connected(&self) -> bool {
        matches!(&self.0.stage, Stage::Open(app) if app.is_connected())
    }

    fn unacknowledged(&self) -> usize {
        match &self.0.stage {
            Stage::Open(app) => LocalStream::unacknowledged(app),
            Stage::Handshake(_) | Stage::Connecting(_) | Stage::Failed => 0,
        }
    }

    fn rehome(mut self) -> io::Result<Self> {
        self.0.stage = match mem::replace(&mut self.0.stage, Stage::Failed) {
            Stage::Open(app) => Stage::Open(app.rehome()?),
            // A timer and a connecting socket need no move.
            stage => stage,
        };
        Ok(self)
    }
}

impl TlsSession {
    fn has_ended(&self) -> bool {
        self.down == ClientDirection::Ended && self.up == AppDirection::Ended
    }
}

/// The error that the relay turns into a reset.
fn reset_error() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Writes into the free part of a buffer.
struct BufferWriter<'a, 'b>(&'a mut ReadBuf<'b>);

impl io::Write for BufferWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0.remaining());
        self.0.put_slice(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
