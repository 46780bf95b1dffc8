//! The phase of a drain as many tasks see it: cheap to look at and to wait for.
//!
//! Each flow polls whether its guest drains whenever it moves bytes. So a poll is a load of one
//! byte; a task takes the lock once to leave its waker, and once more when it is gone. `link/loom`
//! checks that none is missed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::drain::phase::{Phase, PhaseStep};
use crate::sync::{AtomicU8, Mutex, Ordering};

/// The phase, and the tasks that wait for a later one.
#[derive(Debug)]
pub(crate) struct PhaseSignal {
    /// The phase of `state.step`, written under its lock.
    phase: AtomicU8,
    state: Mutex<SignalState>,
}

#[derive(Debug)]
struct SignalState {
    step: PhaseStep,
    waiting: Slab<WaitingTask>,
}

/// A task that waits for a phase.
#[derive(Debug)]
struct WaitingTask {
    phase: Phase,
    /// `None`: it was woken.
    waker: Option<Waker>,
}

impl PhaseSignal {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Running as u8),
            state: Mutex::new(SignalState {
                step: PhaseStep::running(now),
                waiting: Slab::new(),
            }),
        }
    }

    /// Whether the drain is in this phase or a later one.
    pub(crate) fn has_reached(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) >= phase as u8
    }

    /// The phase and its times.
    pub(crate) fn step(&self) -> PhaseStep {
        self.state.lock().step
    }

    /// Goes on to a later phase, which ends within `limit`, and wakes the tasks that wait for it.
    /// Does nothing in that phase or a later one: `false`.
    pub(crate) fn advance(&self, phase: Phase, now: Instant, limit: Duration) -> bool {
        let mut state = self.state.lock();
        let Some(step) = state.step.advance(phase, now, limit) else {
            return false;
        };
        state.step = step;
        self.phase.store(phase as u8, Ordering::Release);
        let waiting = state.waiting.iter_mut();
        let reached = waiting.filter(|(_, task)| task.phase <= phase);
        let wakers: Vec<_> = reached.filter_map(|(_, task)| task.waker.take()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        true
    }

    /// Waits for this phase, or a later one.
    pub(crate) fn reached(self: &Arc<Self>, phase: Phase) -> PhaseReached {
        PhaseReached {
            signal: Arc::clone(self),
            phase,
            place: None,
        }
    }
}

/// Ready from a phase on. Cheap to poll: without a lock and an allocation, except for the first
/// time and when the task has another waker.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct PhaseReached {
    signal: Arc<PhaseSignal>,
    phase: Phase,
    /// Among the waiting tasks, and the waker that stands there.
    place: Option<(usize, Waker)>,
}

impl Future for PhaseReached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal.has_reached(self.phase) {
            return Poll::Ready(());
        }
        if let Some((_, waker)) = &self.place
            && waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        let signal = Arc::clone(&self.signal);
        let mut state = signal.state.lock();
        // Again, under the lock: an advance after this finds the waker.
        if state.step.phase >= self.phase {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let task = WaitingTask {
            phase: self.phase,
            waker: Some(waker.clone()),
        };
        let (key, old) = match &self.place {
            Some((key, _)) => {
                let place = state.waiting.get_mut(*key);
                (*key, place.map(|place| std::mem::replace(place, task)))
            }
            None => (state.waiting.insert(task), None),
        };
        drop(state);
        // Outside of the lock: the last waker of a task drops it.
        drop(old);
        self.place = Some((key, waker));
        Poll::Pending
    }
}

impl Drop for PhaseReached {
    fn drop(&mut self) {
        if let Some((key, _)) = self.place.take() {
            let task = self.signal.state.lock().waiting.try_remove(key);
            // Outside of the lock: the last waker of a task drops it.
            drop(task);
        }
    }
}
