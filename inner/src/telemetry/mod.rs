//! Reports to the host: the guest's state, the app's output, and odyn-net's own log.

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

/// Bytes of states that the host has not written yet; a state has a few bytes.
const MAX_PENDING_STATUS: usize = 64 * 1024;
/// How long the host has to confirm the last records, also after the drain timeout.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the app's standard output and error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StdioMode {
    /// To the host, together with odyn-net's log.
    Host,
    /// To the standard output and error of odyn-net.
    Inherit,
}

impl StdioMode {
    /// The mode that was asked for, or the default. Output of a machine's first process goes to the
    /// host, for no terminal or service manager would read it.
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
    /// Starts the feeds. The first record says that the guest starts; the host reads it once the
    /// link is up.
    pub fn start(client: &HostLink, guest: &Identity, log: Option<LogFeed>) -> Self {
        let report = Self {
            client: client.clone(),
            guest: guest.clone(),
            status: Feed::new(MAX_PENDING_STATUS),
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

    /// Reports a state.
    pub fn state(&self, state: &GuestState) {
        self.status
            .try_write(now(), &Bytes::from(state.to_record()));
    }

    /// The standard output and error of the app.
    ///
    /// # Errors
    /// The process has no descriptors left for pipes.
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

    /// Ends the reports after all flows are done.
    ///
    /// Reads the app's output to its end, ends the log, reports how the app ended, and waits until
    /// the host has confirmed all of it. At the deadline the rest is lost and logged.
    pub async fn finish(mut self, ending: AppExit, deadline: Instant) {
        let deadline = deadline.max(Instant::now() + CONFIRM_TIMEOUT);
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
            log.report_dropped();
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
        let confirm_by = Instant::now() + CONFIRM_TIMEOUT;
        // With `inherit` the output does not go through the link, so odyn-net does not wait for a
        // host that is away.
        let is_alone = self.streams.is_empty() && *self.client.state().borrow() != LinkState::Up;
        let until = if is_alone {
            confirm_by
        } else {
            deadline.max(confirm_by)
        };
        let _ = timeout_at(until, confirmed).await;
    }

    /// Ends the output at the deadline: a process still holds the pipes open, or the host does not
    /// read.
    async fn stop_output(&mut self) {
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        for stream in &mut self.streams {
            stream.stop();
            let read = async {
                stream.read_to_end().await;
                stream.feed.finished().await;
            };
            if timeout_at(deadline, read).await.is_err() {
                let bytes = stream.feed.pending().bytes;
                tracing::warn!(bytes, "output of the app is lost: the host did not take it");
            }
        }
    }

    /// Reports that odyn-net has failed, and waits until the host has the reason. The wait ends
    /// after `limit`, if there is one, and at SIGTERM or SIGINT.
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
