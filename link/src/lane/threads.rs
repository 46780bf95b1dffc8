//! Where flows on lanes are carried.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

/// How much less than the others the threads of lanes want the processor (setpriority(2)). A
/// thread that wakes for a small message is then run before a thread that moves bulk goes on.
const NICE: i32 = 10;

/// Threads for lanes, beside those of everything else: started with the first lane. Whoever moves
/// as many bytes as it can must not stand in a queue before somebody who moves few.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Option<Runtime>>);

impl Threads {
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
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.is_none() {
            match start() {
                Ok(runtime) => *threads = Some(runtime),
                Err(error) => warn!(%error, "no threads for lanes"),
            }
        }
        threads.as_ref().map(|runtime| runtime.handle().clone())
    }
}

fn start() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name("lanes")
        .on_thread_start(|| {
            // Of this thread only: Linux has a priority of each.
            let _ = rustix::process::setpriority_process(None, NICE);
        })
        // Between two looks for new events; a turn of a lane is long.
        .event_interval(8)
        .enable_all()
        .build()
}

impl Drop for Threads {
    fn drop(&mut self) {
        let threads = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = threads.take() {
            // Waiting for them is not allowed where this is dropped.
            runtime.shutdown_background();
        }
    }
}
