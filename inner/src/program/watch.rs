//! Waits for the program, reaps whatever else ends, and passes signals on.

use std::io;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Exited(u8),
    /// A signal killed it.
    Signaled(Signal),
}

impl Ending {
    /// The exit code to pass on: the program's, or 128 and the number of the signal.
    pub fn code(self) -> u8 {
        match self {
            Ending::Exited(code) => code,
            Ending::Signaled(signal) => 128u8.saturating_add(signal as i32 as u8),
        }
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        ExitCode::from(ending.code())
    }
}

/// Signals passed on to the program.
const FORWARDED: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// The signal handlers, installed before the program starts so that none is missed.
pub struct Watch {
    child: SignalStream,
    forwarded: Vec<(Signal, SignalStream)>,
}

impl Watch {
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
        })
    }

    /// Waits until the program `pid` ended, forwarding signals and reaping orphans meanwhile.
    ///
    /// # Errors
    /// The program is not our child.
    pub async fn wait(&mut self, pid: u32) -> io::Result<Ending> {
        let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
        loop {
            if let Some(ending) = reap(pid)? {
                return Ok(ending);
            }
            tokio::select! {
                _ = self.child.recv() => {}
                signal = next(&mut self.forwarded) => forward(pid, signal),
            }
        }
    }
}

async fn next(streams: &mut [(Signal, SignalStream)]) -> Signal {
    let waits = streams
        .iter_mut()
        .map(|(signal, stream)| Box::pin(async move { stream.recv().await.map(|()| *signal) }));
    match futures::future::select_all(waits).await {
        (Some(signal), _, _) => signal,
        // A signal stream never ends while the runtime lives.
        (None, _, _) => std::future::pending().await,
    }
}

fn forward(pid: Pid, signal: Signal) {
    // A terminal sends these to the whole foreground group: the program got its own already.
    let from_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH)
        && in_foreground_of_terminal();
    if from_terminal {
        return;
    }
    if let Err(error) = kill(pid, signal) {
        tracing::debug!(%error, %signal, "could not pass a signal on");
    }
}

fn in_foreground_of_terminal() -> bool {
    nix::unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Reaps everything that ended; `Some` when the program was among it.
fn reap(program: Pid) -> io::Result<Option<Ending>> {
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        match status {
            WaitStatus::StillAlive => return Ok(None),
            WaitStatus::Exited(pid, code) if pid == program => {
                return Ok(Some(Ending::Exited(code as u8)));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == program => {
                return Ok(Some(Ending::Signaled(signal)));
            }
            other => tracing::debug!(?other, "reaped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_shell() {
        assert_eq!(Ending::Exited(7).code(), 7);
        assert_eq!(Ending::Signaled(Signal::SIGTERM).code(), 143);
        assert_eq!(Ending::Signaled(Signal::SIGKILL).code(), 137);
    }
}
