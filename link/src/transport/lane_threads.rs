//! Threads that carry bulk flows.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

/// Added to the nice value of the threads (setpriority(2)). A thread that wakes for a small message
/// then runs before a thread that moves bulk.
const NICE: i32 = 10;

/// Threads for bulk flows, separate from the runtime's, started with the first lane. A flow that
/// moves as many bytes as it can must not share a queue with flows that move few.
///
/// Each thread has its own scheduler and epoll, and a flow stays on its thread: handing it over
/// would cost more than the bytes that it moves between two waits.
#[derive(Debug, Default)]
pub(crate) struct LaneThreads {
    started: Mutex<Option<RunningThreads>>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct RunningThreads {
    handles: Vec<Handle>,
    /// Ends the threads when dropped.
    _stop: DropGuard,
}

impl LaneThreads {
    /// Runs a task on one of the threads, or on the caller's runtime when they can't be started.
    /// Dropping the future ends the task.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        match self.handle() {
            Some(handle) => AbortOnDropHandle::new(handle.spawn(task)).await.ok(),
            None => Some(task.await),
        }
    }

    fn handle(&self) -> Option<Handle> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if started.is_none() {
            match start() {
                Ok(threads) => *started = Some(threads),
                Err(error) => warn!(%error, "no threads for lanes"),
            }
        }
        let handles = &started.as_ref()?.handles;
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        handles.get(next % handles.len().max(1)).cloned()
    }
}

fn start() -> io::Result<RunningThreads> {
    let stop = CancellationToken::new();
    let count = thread::available_parallelism().map_or(1, usize::from);
    let mut handles = Vec::with_capacity(count);
    for _ in 0..count {
        let runtime = Builder::new_current_thread()
            // Polls between two checks for new events: fewer than the default, since a poll of a
            // lane is long.
            .event_interval(8)
            .enable_all()
            .build()?;
        handles.push(runtime.handle().clone());
        let stop = stop.clone();
        thread::Builder::new().name("lanes".into()).spawn(move || {
            // Linux has a priority for each thread: this changes only the current one.
            let _ = rustix::process::setpriority_process(None, NICE);
            runtime.block_on(stop.cancelled());
        })?;
    }
    Ok(RunningThreads {
        handles,
        _stop: stop.drop_guard(),
    })
}
