//! The two handles of a drain: one that advances it, and one that follows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::drain::guard::{Guard, GuardCount, GuardKind};
use crate::drain::phase::{Phase, PhaseStep};
use crate::drain::signal::{PhaseReached, PhaseSignal};

/// Starts the drain of a guest or a host and advances it. Clones advance the same drain.
#[derive(Debug, Clone)]
pub struct Trigger(Watch);

/// Follows a drain: sees its phases, holds it with a [`Guard`], and counts what it cuts.
#[derive(Debug, Clone)]
pub struct Watch(Arc<DrainShared>);

#[derive(Debug)]
struct DrainShared {
    signal: Arc<PhaseSignal>,
    handovers: Arc<GuardCount>,
    flows: Arc<GuardCount>,
    cut: AtomicUsize,
    undelivered: AtomicU64,
}

/// The flows that a drain has cut.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowsCut {
    /// How many.
    pub flows: usize,
    /// Bytes of them that are not known to be delivered.
    pub undelivered: u64,
}

impl Default for Trigger {
    fn default() -> Self {
        Self(Watch(Arc::new(DrainShared {
            signal: Arc::new(PhaseSignal::new(Instant::now())),
            handovers: Arc::default(),
            flows: Arc::default(),
            cut: AtomicUsize::new(0),
            undelivered: AtomicU64::new(0),
        })))
    }
}

impl Trigger {
    /// Goes on to a later phase, which ends within `limit`. Does nothing in that phase or a later
    /// one: `false`.
    pub fn advance(&self, phase: Phase, now: Instant, limit: Duration) -> bool {
        self.0.0.signal.advance(phase, now, limit)
    }

    /// A handle that follows this drain.
    pub fn watch(&self) -> Watch {
        self.0.clone()
    }
}

impl Watch {
    /// The phase and its times.
    pub fn step(&self) -> PhaseStep {
        self.0.signal.step()
    }

    /// Whether the drain is in this phase or a later one. Cheap.
    pub fn has_reached(&self, phase: Phase) -> bool {
        self.0.signal.has_reached(phase)
    }

    /// Waits for this phase or a later one. Cheap to poll, so a flow may do so at each turn.
    pub fn reached(&self, phase: Phase) -> PhaseReached {
        self.0.signal.reached(phase)
    }

    /// Waits until the drain has begun: [`Watch::reached`] of [`Phase::Draining`].
    pub fn draining(&self) -> PhaseReached {
        self.reached(Phase::Draining)
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.has_reached(Phase::Draining)
    }

    /// Waits until there is no more time: [`Watch::reached`] of [`Phase::Forced`].
    pub fn forced(&self) -> PhaseReached {
        self.reached(Phase::Forced)
    }

    /// Whether there is no more time.
    pub fn is_forced(&self) -> bool {
        self.has_reached(Phase::Forced)
    }

    /// Waits until the drain has begun and the time of its phase is over. For its owner, who
    /// advances it then: a phase that comes meanwhile is not noticed.
    pub async fn out_of_time(&self) {
        self.draining().await;
        sleep_until(self.step().until.into()).await;
    }

    /// Holds the drain until the guard is dropped.
    pub fn guard(&self, kind: GuardKind) -> Guard {
        self.count(kind).guard()
    }

    /// Guards of a kind that have not ended.
    pub(crate) fn guards(&self, kind: GuardKind) -> usize {
        self.count(kind).count()
    }

    /// Waits until no guard of a kind is left.
    pub(crate) async fn no_guards(&self, kind: GuardKind) {
        self.count(kind).none().await;
    }

    fn count(&self, kind: GuardKind) -> &Arc<GuardCount> {
        match kind {
            GuardKind::Handover => &self.0.handovers,
            GuardKind::Flow => &self.0.flows,
        }
    }

    /// Counts a flow that was cut, and its bytes that are not known to be delivered.
    pub(crate) fn note_cut(&self, undelivered: u64) {
        self.0.cut.fetch_add(1, Ordering::Relaxed);
        self.0.undelivered.fetch_add(undelivered, Ordering::Relaxed);
    }

    /// The flows that were cut.
    pub fn cut(&self) -> FlowsCut {
        FlowsCut {
            flows: self.0.cut.load(Ordering::Relaxed),
            undelivered: self.0.undelivered.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phase_wakes_the_tasks_that_wait_for_it_or_an_earlier_one() {
        let trigger = Trigger::default();
        let watch = trigger.watch();
        let wait = |phase| tokio::spawn(watch.reached(phase));
        let (draining, flushing) = (wait(Phase::Draining), wait(Phase::Flushing));
        let forced = wait(Phase::Forced);
        tokio::task::yield_now().await;
        trigger.advance(Phase::Flushing, Instant::now(), Duration::ZERO);
        draining.await.unwrap();
        flushing.await.unwrap();
        assert!(!forced.is_finished());
        assert!(watch.is_draining() && !watch.is_forced());
        trigger.advance(Phase::Done, Instant::now(), Duration::ZERO);
        forced.await.unwrap();
        assert_eq!(watch.step().phase, Phase::Done);
        watch.forced().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_phase_is_over_at_its_end() {
        let trigger = Trigger::default();
        let (watch, begin) = (trigger.watch(), tokio::time::Instant::now());
        let limit = Duration::from_secs(9);
        let over = tokio::spawn(async move {
            watch.out_of_time().await;
            begin.elapsed()
        });
        tokio::time::sleep(limit).await;
        let now = tokio::time::Instant::now().into_std();
        trigger.advance(Phase::Draining, now, limit);
        assert!(over.await.unwrap() >= 2 * limit);
    }
}
