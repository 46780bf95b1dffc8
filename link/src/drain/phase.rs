//! The end of the guest's side, in phases.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::drain::guard::{DrainGuard, OpenFlowGuard};

/// How far the end of a guest is. Phases are passed through in this order; some may be skipped,
/// none is gone back to.
///
/// | phase | begins | promise |
/// |---|---|---|
/// | `Running` | at the start | |
/// | `Draining` | the program has ended | what waits in accept backlogs is taken; every byte that it wrote is read and carried, as fast as its peer takes it; flows that are being opened are opened, also over a link that has to be dialled again |
/// | `Flushing` | nothing is left to carry | the host half is asked, on every connection, whether all is delivered, and waits for it |
/// | `Forced` | at the deadline, or when told to stop again | the host half is asked what is delivered; flows of which something is not are cut and say how much |
/// | `Done` | every flow has ended, and the connections were closed | |
///
/// What ends without `Forced` is delivered: the peer's kernel has acknowledged it. The exceptions
/// are in `docs/shutdown.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Flows come and go.
    Running,
    /// The program is gone; what it wrote is carried on.
    Draining,
    /// All is handed to the host half, which confirms its delivery.
    Flushing,
    /// No more time: what is not delivered is cut.
    Forced,
    /// Over.
    Done,
}

/// The drain of a guest, shared by all that takes part in it.
#[derive(Debug, Clone)]
pub struct Drain(pub(super) Arc<DrainState>);

#[derive(Debug)]
pub(super) struct DrainState {
    phase: watch::Sender<PhaseStep>,
    draining: CancellationToken,
    forced: CancellationToken,
    pub(super) drain_guard: AtomicUsize,
    pub(super) idle: Notify,
    pub(super) open_flow: AtomicUsize,
    pub(super) no_open_flows: Notify,
    cut: AtomicUsize,
    undelivered: AtomicU64,
}

/// A phase, and the time at which it is over at the latest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PhaseStep {
    pub(crate) phase: Phase,
    pub(crate) until: Instant,
}

impl Drain {
    pub(crate) fn new() -> Self {
        let step = PhaseStep {
            phase: Phase::Running,
            until: Instant::now(),
        };
        Self(Arc::new(DrainState {
            phase: watch::Sender::new(step),
            draining: CancellationToken::new(),
            forced: CancellationToken::new(),
            drain_guard: AtomicUsize::new(0),
            idle: Notify::new(),
            open_flow: AtomicUsize::new(0),
            no_open_flows: Notify::new(),
            cut: AtomicUsize::new(0),
            undelivered: AtomicU64::new(0),
        }))
    }

    /// A flow was cut.
    pub(crate) fn note_cut(&self, undelivered: u64) {
        self.0.cut.fetch_add(1, Ordering::Relaxed);
        self.0.undelivered.fetch_add(undelivered, Ordering::Relaxed);
    }

    /// Flows that were cut, and their bytes.
    pub(crate) fn cuts(&self) -> (usize, u64) {
        (
            self.0.cut.load(Ordering::Relaxed),
            self.0.undelivered.load(Ordering::Relaxed),
        )
    }

    pub(crate) fn drain_guard(&self) -> DrainGuard {
        self.0.drain_guard.fetch_add(1, Ordering::AcqRel);
        DrainGuard(self.clone())
    }

    pub(crate) fn open_flow(&self) -> OpenFlowGuard {
        self.0.open_flow.fetch_add(1, Ordering::AcqRel);
        OpenFlowGuard(self.clone())
    }

    /// Flows that are in no pool and have not ended.
    pub(crate) fn open_flows(&self) -> usize {
        self.0.open_flow.load(Ordering::Acquire)
    }

    /// Waits until there is no flow that is in no pool.
    pub(crate) async fn no_open_flows(&self) {
        loop {
            let notified = self.0.no_open_flows.notified();
            if self.open_flows() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Waits until nobody is drain_guard.
    pub(crate) async fn idle(&self) {
        loop {
            let notified = self.0.idle.notified();
            if self.0.drain_guard.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Goes on to a later phase, which ends in `time`; does nothing in that phase or a later one.
    pub(crate) fn advance(&self, phase: Phase, time: Duration) {
        // First: who sees the phase may count on flows that see it, too. What a peer sends from
        // then on is not written to the program's orphaned socket any more.
        if phase >= Phase::Draining {
            self.0.draining.cancel();
        }
        if phase >= Phase::Forced {
            self.0.forced.cancel();
        }
        let until = Instant::now() + time;
        let advanced = self.0.phase.send_if_modified(|step| {
            let later = step.phase < phase;
            if later {
                *step = PhaseStep { phase, until };
            }
            later
        });
        if advanced {
            tracing::debug!(?phase, "drain");
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.0.phase.borrow().phase
    }

    /// The phase that is waited for, or a later one.
    pub(crate) async fn reached(&self, phase: Phase) -> PhaseStep {
        let mut steps = self.0.phase.subscribe();
        let seen = steps
            .wait_for(|step| step.phase >= phase)
            .await
            .map(|step| *step);
        match seen {
            Ok(step) => step,
            // The sender lives as long as we do.
            Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<PhaseStep> {
        self.0.phase.subscribe()
    }

    /// Ready from [`Phase::Draining`] on; cheap to poll.
    pub fn draining(&self) -> WaitForCancellationFutureOwned {
        self.0.draining.clone().cancelled_owned()
    }

    /// Cancelled from [`Phase::Draining`] on.
    pub(crate) fn draining_token(&self) -> CancellationToken {
        self.0.draining.clone()
    }

    /// Whether [`Phase::Draining`] has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Ready from [`Phase::Forced`] on.
    pub(crate) fn forced(&self) -> WaitForCancellationFutureOwned {
        self.0.forced.clone().cancelled_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_go_forward_only() {
        let drain = Drain::new();
        assert!(!drain.is_draining());
        drain.advance(Phase::Flushing, Duration::ZERO);
        drain.advance(Phase::Draining, Duration::ZERO);
        assert_eq!(drain.phase(), Phase::Flushing);
        assert!(drain.is_draining());
        drain.draining().await;
        drain.advance(Phase::Done, Duration::ZERO);
        assert_eq!(drain.reached(Phase::Forced).await.phase, Phase::Done);
        drain.forced().await;
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_one() {
        let drain = Drain::new();
        drain.idle().await;
        let (one, two) = (drain.drain_guard(), drain.drain_guard());
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.idle().await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(two);
        waiting.await.unwrap();
    }
}
