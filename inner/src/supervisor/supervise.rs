//! Waits for the app, passes signals on to it, and reaps orphans.

use std::io;
use std::time::Duration;

use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::{Instant, timeout_at};

pub use crate::supervisor::exit_status::AppExit;
use crate::supervisor::reap::{ChildEvent, reap, reap_all};
use crate::supervisor::stragglers::EarlierChildren;
use crate::supervisor::terminal::Terminal;

/// The signals that odyn-net passes on to the app.
///
/// These are the signals that one process sends to another. Signals that report an error, or
/// something that odyn-net itself did (SIGSEGV, SIGPIPE, SIGCHLD, SIGALRM), are not among them.
const FORWARDED: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGTSTP,
];

/// How long odyn-net waits for killed processes to end. A process that the kernel holds (a dead
/// disk) does not end by SIGKILL; odyn-net then ends without it.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause between two looks for a killed process. No SIGCHLD reports one that was not a
/// child of odyn-net when it was killed.
const MAX_REAP_INTERVAL: Duration = Duration::from_millis(20);

/// The child that a [`Supervisor`] waits for and passes signals to.
#[derive(Debug)]
pub struct SupervisedProcess {
    pid: Pid,
    /// Whether the child leads a process group, which gets the signals. Otherwise it is in the
    /// group of odyn-net.
    group: bool,
}

impl SupervisedProcess {
    /// A child in the process group of odyn-net. A terminal signals it directly.
    pub fn process(pid: u32) -> Self {
        Self::new(pid, false)
    }

    /// A child that leads a process group.
    pub fn group(pid: u32) -> Self {
        Self::new(pid, true)
    }

    fn new(pid: u32, group: bool) -> Self {
        Self {
            pid: Pid::from_raw(pid.cast_signed()),
            group,
        }
    }

    /// The argument for kill(2): the process, or its group as a negative number.
    fn target(&self) -> Pid {
        if self.group {
            Pid::from_raw(-self.pid.as_raw())
        } else {
            self.pid
        }
    }
}

/// The signal handlers, installed before the app starts so that no signal is lost.
pub struct Supervisor {
    child: SignalStream,
    forwarded: Vec<(Signal, SignalStream)>,
    terminal: Option<Terminal>,
    bystanders: EarlierChildren,
}

impl Supervisor {
    /// Installs the handlers and makes odyn-net the reaper of the app's orphans.
    ///
    /// # Errors
    /// The kernel refused a handler.
    pub fn install() -> io::Result<Self> {
        prctl::set_child_subreaper(true)?;
        let forwarded = FORWARDED
            .into_iter()
            .map(|s| Ok((s, signal(SignalKind::from_raw(s as i32))?)))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            child: signal(SignalKind::child())?,
            forwarded,
            terminal: Terminal::controlling(),
            bystanders: EarlierChildren::now(),
        })
    }

    /// Waits until the app has ended, passing signals on and reaping orphans meanwhile.
    ///
    /// # Errors
    /// The process is not a child of odyn-net.
    pub async fn wait(&mut self, watched: &SupervisedProcess) -> io::Result<AppExit> {
        if let (Some(terminal), true) = (&self.terminal, watched.group) {
            terminal.lend(watched.pid);
        }
        let ending = self.until_ended(watched).await;
        if let Some(terminal) = &self.terminal {
            terminal.take_back(watched.pid);
        }
        ending
    }

    async fn until_ended(&mut self, watched: &SupervisedProcess) -> io::Result<AppExit> {
        loop {
            match reap(watched.pid)? {
                Some(ChildEvent::Ended(ending)) => return Ok(ending),
                Some(ChildEvent::Stopped(signal)) => {
                    self.stopped(watched, signal);
                    continue;
                }
                None => {}
            }
            tokio::select! {
                _ = self.child.recv() => {}
                signal = next(&mut self.forwarded) => forward(watched, signal),
            }
        }
    }

    /// Kills the processes that the app left behind and waits for their end. Their sockets have
    /// ended, too, when this returns.
    pub async fn end_leftovers(&mut self) {
        let deadline = Instant::now() + KILL_TIMEOUT;
        // Read /proc less often when a process takes long to end.
        let mut pause = Duration::from_millis(1);
        loop {
            let left = self.bystanders.kill_others();
            let children = match reap_all() {
                Ok(children) => children,
                Err(error) => {
                    tracing::warn!(%error, "cannot reap children");
                    return;
                }
            };
            if !left || !children {
                return;
            }
            if Instant::now() >= deadline {
                tracing::error!("killed processes that the app left behind do not end");
                return;
            }
            let _ = timeout_at(Instant::now() + pause, self.child.recv()).await;
            pause = (pause * 2).min(MAX_REAP_INTERVAL);
        }
    }

    /// Waits for SIGTERM or SIGINT to odyn-net itself, before or after the life of the app. Other
    /// signals stay queued: an app that starts later gets them.
    pub async fn told_to_stop(&mut self) -> Signal {
        let meant = |signal| matches!(signal, Signal::SIGTERM | Signal::SIGINT);
        let mut stop: Vec<_> = self
            .forwarded
            .iter_mut()
            .filter(|(s, _)| meant(*s))
            .collect();
        loop {
            tokio::select! {
                _ = self.child.recv() => {
                    let _ = reap_all();
                }
                signal = next(stop.iter_mut().map(|entry| &mut **entry)) => {
                    tracing::warn!(%signal, "received a signal to stop");
                    return signal;
                }
            }
        }
    }

    /// Handles a stop of the app, or in `simulate` of the guest. On a terminal with a shell
    /// odyn-net stops as well, and continues the app when the shell continues odyn-net.
    fn stopped(&self, watched: &SupervisedProcess, signal: i32) {
        let Some(terminal) = &self.terminal else {
            return;
        };
        let wants_terminal = [libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
        if watched.group && wants_terminal && terminal.is_ours() {
            terminal.give(watched.pid);
            forward(watched, Signal::SIGCONT);
        } else if terminal.has_shell() && (signal != libc::SIGSTOP || !watched.group) {
            terminal.take_back(watched.pid);
            // `raise` returns when the shell continues odyn-net; `next` passes that SIGCONT on.
            let _ = raise(Signal::SIGSTOP);
            if watched.group {
                terminal.lend(watched.pid);
            }
        }
    }
}

async fn next(streams: impl IntoIterator<Item = &mut (Signal, SignalStream)>) -> Signal {
    let waits = streams
        .into_iter()
        .map(|(signal, stream)| Box::pin(async move { stream.recv().await.map(|()| *signal) }));
    match futures::future::select_all(waits).await {
        (Some(signal), _, _) => signal,
        // A signal stream never ends while the runtime lives.
        (None, _, _) => std::future::pending().await,
    }
}

fn forward(watched: &SupervisedProcess, signal: Signal) {
    // A terminal or a shell sends these signals to the whole foreground group. A child in the same
    // group has got its own already.
    let from_terminal = matches!(
        signal,
        Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH | Signal::SIGTSTP | Signal::SIGCONT
    );
    if from_terminal && !watched.group && in_foreground_of_terminal() {
        return;
    }
    if let Err(error) = kill(watched.target(), signal) {
        tracing::debug!(%error, %signal, "cannot send a signal to the app");
    }
}

fn in_foreground_of_terminal() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}
