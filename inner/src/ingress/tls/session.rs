//! One client's TLS: handshake, the program's connection, and what becomes of both.

use std::io;
use std::time::Duration;

use odyn_link::Drain;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::pump::{Finish, Pump};
use super::{Tls, make_reset, unacknowledged};
use crate::ingress::app::AppPort;
use crate::ingress::proxy_header::ClientHeader;

/// How long bytes that came before a reset may take to be taken.
const GRACE: Duration = Duration::from_secs(10);
/// Pause between looks at a send queue.
const PAUSE: Duration = Duration::from_millis(5);

/// What a client's TLS needs.
pub(in crate::ingress) struct Session<'a> {
    pub(in crate::ingress) tls: &'a Tls,
    pub(in crate::ingress) program: &'a AppPort,
    /// How long the program may take to listen.
    pub(in crate::ingress) patience: Duration,
    /// How long the handshake may take.
    pub(in crate::ingress) handshake: Duration,
    pub(in crate::ingress) drain: &'a Drain,
    /// What the program is told first.
    pub(in crate::ingress) greeting: ClientHeader,
}

/// How a session ended, as far as the relay does not know it.
#[derive(Debug)]
pub(in crate::ingress) enum Outcome {
    /// The relay knows.
    Relayed,
    /// There was no session.
    Handshake(io::Error),
    /// The program took no connection.
    NoProgram(io::Error),
    /// The client's bytes ended without a proper end.
    Truncated,
}

/// The end of the pair, to be kept until the relay has ended: closing it with ciphertext that nobody
/// reads would reset the relay's.
pub(in crate::ingress) type Kept = Option<TcpStream>;

/// What becomes of our end of the pair.
enum Far {
    Keep,
    Reset,
    /// Reset, when the relay has taken what was written to it.
    ResetBehind,
}

impl Session<'_> {
    /// Serves the client whose ciphertext comes from `far`. Says whether the program was reached.
    pub(in crate::ingress) async fn run(self, mut far: TcpStream) -> (Outcome, bool, Kept) {
        let (outcome, reached, end) = match self.handshake(&mut far).await {
            Ok(tls) => self.serve(tls).await,
            // The alert shall get there.
            Err(error) => (Outcome::Handshake(error), false, Far::ResetBehind),
        };
        match end {
            Far::Keep => return (outcome, reached, Some(far)),
            Far::Reset => {}
            Far::ResetBehind => {
                until(self.drain, acknowledged(&far)).await;
            }
        }
        let _ = make_reset(&far);
        (outcome, reached, None)
    }

    async fn handshake<'a>(
        &self,
        far: &'a mut TcpStream,
    ) -> io::Result<TlsStream<&'a mut TcpStream>> {
        let accepting = TlsAcceptor::from(self.tls.config()).accept(far);
        tokio::select! {
            biased;
            // The program is gone.
            () = self.drain.draining() => Err(io::ErrorKind::ConnectionRefused.into()),
            accepted = accepting => accepted,
            () = sleep(self.handshake) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn serve(&self, mut tls: TlsStream<&mut TcpStream>) -> (Outcome, bool, Far) {
        let mut program = match self.connect(&tls).await {
            Ok(program) => program,
            Err(error) => return (Outcome::NoProgram(error), false, Far::Reset),
        };
        let mut pump = Pump::new(&mut tls, &mut program);
        let finish = self.pump(&mut pump).await;
        let has_ended_up = pump.has_ended_up();
        let far = match finish {
            Finish::Ended => Far::Keep,
            Finish::ProgramReset => {
                // Without a close_notify, which would make it look like an end.
                let _ = until(self.drain, tls.flush()).await;
                Far::ResetBehind
            }
            Finish::Truncated | Finish::ClientGone => {
                reset_program(program, self.drain).await;
                match has_ended_up {
                    // It has the whole answer, or will: the relay still carries it.
                    true => Far::Keep,
                    false => Far::Reset,
                }
            }
        };
        let outcome = match finish {
            Finish::Truncated => Outcome::Truncated,
            _ => Outcome::Relayed,
        };
        (outcome, true, far)
    }

    async fn connect(&self, tls: &TlsStream<&mut TcpStream>) -> io::Result<TcpStream> {
        let (far, session) = tls.get_ref();
        let (alpn, server) = (session.alpn_protocol(), session.server_name());
        let connecting = async {
            let mut program = self.program.connect(self.patience).await?;
            self.greeting.tell(&mut program, alpn, server).await?;
            Ok(program)
        };
        tokio::select! {
            biased;
            () = self.drain.draining() => Err(io::ErrorKind::ConnectionRefused.into()),
            connected = connecting => connected,
            () = gone(far) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    async fn pump(&self, pump: &mut Pump<'_, '_>) -> Finish {
        tokio::select! {
            biased;
            // First: from here on not a byte may be written to the program's socket.
            () = self.drain.draining() => {}
            finish = pump.run() => return finish,
        }
        pump.draining = true;
        pump.run().await
    }
}

/// Waits until the socket was reset.
async fn gone(socket: &TcpStream) {
    let failed = socket.ready(Interest::ERROR).await;
    if failed.is_err() || !matches!(socket.take_error(), Ok(None)) {
        return;
    }
    std::future::pending().await
}

/// Resets the program's connection, behind what was written to it.
async fn reset_program(program: TcpStream, drain: &Drain) {
    tokio::select! {
        // For a program that is gone there is nothing to deliver.
        () = drain.draining() => {}
        _ = timeout(GRACE, acknowledged(&program)) => {}
    }
    let _ = make_reset(&program);
}

async fn acknowledged(socket: &TcpStream) {
    while unacknowledged(socket) > 0 {
        sleep(PAUSE).await;
    }
}

/// In a running guest for a while; at its end, as long as it takes.
async fn until<T>(drain: &Drain, work: impl Future<Output = T>) -> Option<T> {
    let patience = async {
        let _ = timeout(GRACE, drain.draining()).await;
        if drain.is_draining() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        done = work => Some(done),
        () = patience => None,
    }
}
