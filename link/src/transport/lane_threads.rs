//! Where flows on lanes are carried.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

/// How much less than the others the threads of lanes want the processor (setpriority(2)). A
/// thread that wakes for a small message is then run before a thread that moves bulk goes on.
const NICE: i32 = 10;

/// LaneThreads for lanes, beside those of everything else: started with the first lane. Whoever moves
/// as many bytes as it can must not stand in a queue before somebody who moves few.
///
/// Each has a scheduler and an epoll of its own, and a flow stays where it is: handing it from one
/// to the other would cost more than the bytes that it moves between two waits.
#[derive(Debug, Default)]
pub(crate) struct LaneThreads {
    started: Mutex<Option<RunningThreads>>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct RunningThreads {
    handles: Vec<Handle>,
    /// Ends the threads.
    _stop: DropGuard,
}

impl LaneThreads {
    /// Runs a task there, and here when there can be no threads. Dropping the answer ends it.
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
            // Between two looks for new events; a turn of a lane is long.
            .event_interval(8)
            .enable_all()
            .build()?;
        handles.push(runtime.handle().clone());
        let stop = stop.clone();
        thread::Builder::new().name("lanes".into()).spawn(move || {
            // Of this thread only: Linux has a priority of each.
            let _ = rustix::process::setpriority_process(None, NICE);
            runtime.block_on(stop.cancelled());
        })?;
    }
    Ok(RunningThreads {
        handles,
        _stop: stop.drop_guard(),
    })
}
