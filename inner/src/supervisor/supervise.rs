//! Waits for the program, reaps whatever else ends, and passes signals on.

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

/// Signals passed on to the program: all that have a meaning between processes, none that tells
/// of an error or of something that odyn-net itself did (SIGSEGV, SIGPIPE, SIGCHLD, SIGALRM).
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

/// What killed processes get to be gone. One that the kernel holds (a dead disk) does not end by
/// SIGKILL, and must not keep odyn-net.
const GONE: Duration = Duration::from_secs(5);
/// A killed process whose end nobody tells us of, as it was not our child then.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Whose end is waited for, and who gets the signals.
#[derive(Debug)]
pub struct SupervisedProcess {
    pid: Pid,
    /// It leads a process group of its own, which gets the signals; else it shares ours.
    group: bool,
}

impl SupervisedProcess {
    /// A child in our own process group: what a terminal sends reaches it without us.
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

    /// What kill(2) takes.
    fn target(&self) -> Pid {
        if self.group {
            Pid::from_raw(-self.pid.as_raw())
        } else {
            self.pid
        }
    }
}

/// The signal handlers, installed before the program starts so that none is missed.
pub struct Supervisor {
    child: SignalStream,
    forwarded: Vec<(Signal, SignalStream)>,
    terminal: Option<Terminal>,
    bystanders: EarlierChildren,
}

impl Supervisor {
    /// Installs the handlers and makes orphans of the program ours to reap.
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

    /// Waits until the program ended, forwarding signals and reaping orphans meanwhile.
    ///
    /// # Errors
    /// It is not our child.
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

    /// Kills what the program left behind and waits until it is gone, so that all its sockets
    /// have ended.
    pub async fn end_leftovers(&mut self) {
        let deadline = Instant::now() + GONE;
        // Fewer looks at /proc while something takes its time.
        let mut pause = Duration::from_millis(1);
        loop {
            let left = self.bystanders.kill_others();
            let children = match reap_all() {
                Ok(children) => children,
                Err(error) => {
                    tracing::warn!(%error, "cannot reap");
                    return;
                }
            };
            if !left || !children {
                return;
            }
            if Instant::now() >= deadline {
                tracing::error!("what the program left behind does not end, although killed");
                return;
            }
            let _ = timeout_at(Instant::now() + pause, self.child.recv()).await;
            pause = (pause * 2).min(LOOK_AGAIN);
        }
    }

    /// Waits until odyn-net itself is told to stop, before its program starts or after it has ended. Other
    /// signals are kept: a program that starts later gets them.
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
                    tracing::warn!(%signal, "told to stop");
                    return signal;
                }
            }
        }
    }

    /// The program, or in `simulate` the guest, was stopped. On a terminal with a shell we stop
    /// with it, and continue it when the shell continues us.
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
            // Returns when the shell continues us; its SIGCONT is passed on like any other.
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
    // A terminal, or the shell, sends these to the whole foreground group: who shares it got its
    // own already.
    let from_terminal = matches!(
        signal,
        Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH | Signal::SIGTSTP | Signal::SIGCONT
    );
    if from_terminal && !watched.group && in_foreground_of_terminal() {
        return;
    }
    if let Err(error) = kill(watched.target(), signal) {
        tracing::debug!(%error, %signal, "could not pass a signal on");
    }
}

fn in_foreground_of_terminal() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}
