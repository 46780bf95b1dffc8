//! Plain bytes between a TLS session and the program's socket.
//!
//! | what happened | what the other side gets |
//! |---|---|
//! | client: close_notify | FIN behind the last byte; the other direction goes on |
//! | client: FIN without close_notify, bytes that are no TLS, RST | the bytes that had come, then RST |
//! | program: FIN | close_notify and FIN behind the last byte; the other direction goes on |
//! | program: RST | the bytes that had been read, then RST, and no close_notify |

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Most that is read from the program at once: what one record holds.
const READ: usize = 16 * 1024;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// Both directions, or in a drain that of the program, by their ends.
    Ended,
    /// The program has reset its connection.
    ProgramReset,
    /// The client's end is gone, or speaks nonsense.
    ClientGone,
    /// The client's bytes ended without close_notify: somebody may have cut them off.
    Truncated,
}

pub(super) struct Pump<'a, 'b> {
    tls: &'a mut TlsStream<&'b mut TcpStream>,
    program: &'a mut TcpStream,
    /// Plain bytes of the program that TLS did not take yet. Empty, and without memory, while the
    /// program is silent.
    read: BytesMut,
    up: Up,
    down: Down,
    /// Nobody reads what comes from the client any more.
    pub(super) draining: bool,
}

/// From the program to the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Up {
    Open,
    /// close_notify is to be sent.
    Ending,
    Ended,
}

/// From the client to the program.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Down {
    Open,
    /// The FIN is to be sent.
    Ending,
    Ended,
    /// The program takes no more.
    Failed,
}

impl<'a, 'b> Pump<'a, 'b> {
    pub(super) fn new(
        tls: &'a mut TlsStream<&'b mut TcpStream>,
        program: &'a mut TcpStream,
    ) -> Self {
        Self {
            tls,
            program,
            read: BytesMut::new(),
            up: Up::Open,
            down: Down::Open,
            draining: false,
        }
    }

    /// Whether the client has everything up to its close_notify, as far as TLS knows.
    pub(super) fn has_ended_up(&self) -> bool {
        self.up == Up::Ended
    }

    /// Carries until the session has ended.
    pub(super) async fn run(&mut self) -> Finish {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Finish> {
        if !self.draining
            && let Poll::Ready(Err(finish)) = self.poll_down(cx)
        {
            return Poll::Ready(finish);
        }
        if let Err(finish) = ready!(self.poll_up(cx)) {
            return Poll::Ready(finish);
        }
        match self.down {
            Down::Ended => Poll::Ready(Finish::Ended),
            _ if self.draining => Poll::Ready(Finish::Ended),
            Down::Failed => Poll::Ready(Finish::ProgramReset),
            Down::Open | Down::Ending => Poll::Pending,
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Finish>> {
        loop {
            match self.down {
                Down::Open => {
                    let plain = match ready!(Pin::new(&mut *self.tls).poll_fill_buf(cx)) {
                        Ok([]) => {
                            self.down = Down::Ending;
                            continue;
                        }
                        Ok(plain) => plain,
                        Err(error) => return Poll::Ready(Err(end_of_read(&error))),
                    };
                    let written = ready!(Pin::new(&mut *self.program).poll_write(cx, plain));
                    match written {
                        Ok(count) if count > 0 => Pin::new(&mut *self.tls).consume(count),
                        _ => self.down = Down::Failed,
                    }
                }
                Down::Ending => {
                    let shut = ready!(Pin::new(&mut *self.program).poll_shutdown(cx));
                    self.down = match shut {
                        Ok(()) => Down::Ended,
                        Err(_) => Down::Failed,
                    };
                }
                Down::Ended | Down::Failed => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Finish>> {
        let gone = |_| Finish::ClientGone;
        loop {
            match self.up {
                Up::Open if !self.read.is_empty() => {
                    let tls = Pin::new(&mut *self.tls);
                    let count = ready!(tls.poll_write(cx, &self.read)).map_err(gone)?;
                    self.read.advance(count);
                }
                Up::Open => {
                    let Poll::Ready(read) = self.poll_read(cx) else {
                        self.read = BytesMut::new();
                        ready!(Pin::new(&mut *self.tls).poll_flush(cx)).map_err(gone)?;
                        return Poll::Pending;
                    };
                    match read {
                        Ok(0) if self.down == Down::Failed => return reset(),
                        Ok(0) => self.up = Up::Ending,
                        Ok(_) => {}
                        Err(_) => return reset(),
                    }
                }
                Up::Ending => {
                    ready!(Pin::new(&mut *self.tls).poll_shutdown(cx)).map_err(gone)?;
                    self.read = BytesMut::new();
                    self.up = Up::Ended;
                }
                Up::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads from the program.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.program.poll_read_ready(cx))?;
        self.read.resize(READ, 0);
        let mut buffer = ReadBuf::new(&mut self.read);
        let program = pin!(&mut *self.program);
        let result = program.poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        self.read.truncate(count);
        result.map_ok(|()| count)
    }
}

fn reset() -> Poll<Result<(), Finish>> {
    Poll::Ready(Err(Finish::ProgramReset))
}

fn end_of_read(error: &io::Error) -> Finish {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Finish::Truncated,
        _ => Finish::ClientGone,
    }
}
