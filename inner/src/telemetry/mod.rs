//! What the host half is told of this guest: how it is, what its program prints, and our own log.

mod log;
pub mod logging;
mod stdio;

use std::io;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use odyn_proto::GuestState;

pub use crate::telemetry::log::LogFeed;
use odyn_link::{Feed, HostLink, LinkState, now};
use odyn_proto::Identity;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout_at};

use crate::supervisor::exit_status::AppExit;
use crate::telemetry::stdio::OutputStream;

/// A few states of a few bytes.
const STATUS_LIMIT: usize = 64 * 1024;
/// What the host half gets to confirm the last records, also at the end of the drain timeout.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where the program's standard output and error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StdioMode {
    /// To the host half, and our own log too.
    Host,
    /// To our own.
    Inherit,
}

impl StdioMode {
    /// What was asked for. The first process of a machine has nobody beside it who would read its
    /// output.
    pub fn choose(asked: Option<Self>) -> Self {
        match asked {
            Some(mode) => mode,
            None if std::process::id() == 1 => Self::Host,
            None => Self::Inherit,
        }
    }
}

/// The feeds of this guest.
#[derive(Debug)]
pub struct Telemetry {
    client: HostLink,
    guest: Identity,
    status: Feed,
    log: Option<LogFeed>,
    streams: Vec<OutputStream>,
}

impl Telemetry {
    /// Begins: the host half is told that we start, whenever it is there.
    pub fn start(client: &HostLink, guest: &Identity, log: Option<LogFeed>) -> Self {
        let report = Self {
            client: client.clone(),
            guest: guest.clone(),
            status: Feed::new(STATUS_LIMIT),
            log,
            streams: Vec::new(),
        };
        client.feed(guest, "status", &report.status);
        if let Some(log) = &report.log {
            client.feed(guest, "log", log.feed());
        }
        report.state(&GuestState::Starting);
        report
    }

    /// Tells how we are.
    pub fn state(&self, state: &GuestState) {
        self.status
            .try_write(now(), &Bytes::from(state.to_record()));
    }

    /// Standard output and error for the program.
    ///
    /// # Errors
    /// There are no more pipes.
    pub fn stdio(&mut self, mode: StdioMode) -> io::Result<(Stdio, Stdio)> {
        if mode == StdioMode::Inherit {
            return Ok((Stdio::inherit(), Stdio::inherit()));
        }
        let (stdout, out) = OutputStream::open()?;
        let (stderr, err) = OutputStream::open()?;
        self.client.feed(&self.guest, "stdout", &stdout.feed);
        self.client.feed(&self.guest, "stderr", &stderr.feed);
        self.streams = vec![stdout, stderr];
        Ok((out, err))
    }

    /// The last part of a run, when all flows are done: the program's output is read to its end,
    /// then our log ends, then the host half is told how the program ended, and confirms it all.
    /// At the deadline, what is left is reported and lost.
    pub async fn finish(mut self, ending: AppExit, deadline: Instant) {
        let deadline = deadline.max(Instant::now() + LAST_WORDS);
        let delivered = async {
            for stream in &mut self.streams {
                stream.read_to_end().await;
                stream.feed.finished().await;
            }
        };
        if timeout_at(deadline, delivered).await.is_err() {
            self.stop_output().await;
        }
        if let Some(log) = &self.log {
            log.confess();
            log.feed().end();
        }
        self.state(&final_state(ending));
        self.status.end();
        let confirmed = async {
            if let Some(log) = &self.log {
                log.feed().finished().await;
            }
            self.status.finished().await;
        };
        let last_words = Instant::now() + LAST_WORDS;
        // Somebody else has the output, so a host half that is away is not waited for.
        let is_alone = self.streams.is_empty() && *self.client.state().borrow() != LinkState::Up;
        let until = if is_alone {
            last_words
        } else {
            deadline.max(last_words)
        };
        let _ = timeout_at(until, confirmed).await;
    }

    /// A process that is still there holds the pipes open, or the host half takes nothing.
    async fn stop_output(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        for stream in &mut self.streams {
            stream.stop();
            let read = async {
                stream.read_to_end().await;
                stream.feed.finished().await;
            };
            if timeout_at(deadline, read).await.is_err() {
                let bytes = stream.feed.pending().bytes;
                tracing::warn!(
                    bytes,
                    "output of the program is lost: the host half did not take it"
                );
            }
        }
    }

    /// odyn-net has failed. Waits until the host half has the reason: for at most `limit`, if
    /// there is one, and until SIGTERM.
    pub async fn fatal(self, reason: String, limit: Option<Duration>) {
        self.state(&GuestState::Fatal { reason });
        self.status.end();
        let mut feeds = vec![&self.status];
        feeds.extend(self.log.as_ref().map(LogFeed::feed));
        feeds.extend(self.streams.iter().map(|stream| &stream.feed));
        for feed in &feeds {
            feed.end();
        }
        let confirmed = async {
            for feed in feeds {
                feed.finished().await;
            }
        };
        let told = |kind| async move {
            match signal(kind) {
                Ok(mut stream) => {
                    stream.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        let limited = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = confirmed => {}
            () = told(SignalKind::terminate()) => {}
            () = told(SignalKind::interrupt()) => {}
            () = limited => {}
        }
    }
}

fn final_state(ending: AppExit) -> GuestState {
    match (ending, ending.signal_name()) {
        (AppExit::Signaled(_), Some(name)) => GuestState::Signaled {
            signal: name.trim_start_matches("SIG").to_owned(),
        },
        _ => GuestState::Exited {
            code: ending.code(),
        },
    }
}
