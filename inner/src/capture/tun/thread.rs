//! The thread that reads the device.
//!
//! Packets come in bursts, and each costs a system call or two. A task would block a worker of the
//! runtime meanwhile, or wait for other tasks. A thread does neither.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::device::MAX_FRAME;
use super::engine::{Engine, Handler};

/// Interval of the search for flows that the table can forget.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// The running thread. Dropping this ends it.
pub struct Worker {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// The flag ends a busy thread, the event wakes a waiting one.
struct Stop {
    flag: AtomicBool,
    event: EventFd,
    /// How often the thread has found the device empty.
    emptied: watch::Sender<u64>,
}

impl Worker {
    /// Starts the thread. `runtime` runs the tasks that the handler spawns.
    pub(super) fn start<H: Handler>(engine: Engine<H>, runtime: Handle) -> io::Result<Self> {
        let stop = Arc::new(Stop {
            flag: AtomicBool::new(false),
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            emptied: watch::Sender::new(0),
        });
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("odyn-tun".into())
            .spawn(move || {
                let _runtime = runtime.enter();
                if let Err(error) = serve(engine, &stopped) {
                    // The interface stays without a reader, so no packet gets out.
                    tracing::error!(%error, "the TUN device failed: the app has no network");
                }
                // Ends the waits in `settle`.
                stopped
                    .emptied
                    .send_modify(|times| *times = times.wrapping_add(2));
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Waits until every packet that was in the device at the call has been handled.
    pub async fn settle(&self) {
        let mut emptied = self.stop.emptied.subscribe();
        let now = *emptied.borrow_and_update();
        // The first count may be of a read that began before the call, so two are needed.
        let enough = |times: &u64| times.wrapping_sub(now) >= 2;
        while !enough(&emptied.borrow_and_update()) {
            let running = self.thread.as_ref().is_some_and(|t| !t.is_finished());
            if !running || self.stop.event.write(1).is_err() || emptied.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.flag.store(true, Ordering::Relaxed);
        if self.stop.event.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn serve<H: Handler>(mut engine: Engine<H>, stop: &Stop) -> io::Result<()> {
    let mut buffer = vec![0; MAX_FRAME];
    let mut swept = Instant::now();
    let shared = Arc::clone(&engine.shared);
    while !stop.flag.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now.duration_since(swept) >= SWEEP_INTERVAL {
            swept = now;
            engine.sweep(now);
        }
        match shared.device().read(&mut buffer) {
            Ok(mut frame) => engine.packet(&mut frame, now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stop.emptied
                    .send_modify(|times| *times = times.wrapping_add(1));
                wait(shared.device(), &stop.event, engine.is_idle())?;
                // The event itself needs no answer, and an empty read is no failure.
                let _ = stop.event.read();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for a packet, the end of the thread, or the next sweep.
fn wait(device: &impl AsFd, stop: &EventFd, idle: bool) -> io::Result<()> {
    let mut fds = [
        PollFd::new(device.as_fd(), PollFlags::POLLIN),
        PollFd::new(stop.as_fd(), PollFlags::POLLIN),
    ];
    let timeout = if idle {
        PollTimeout::NONE
    } else {
        PollTimeout::try_from(SWEEP_INTERVAL).unwrap_or(PollTimeout::MAX)
    };
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
