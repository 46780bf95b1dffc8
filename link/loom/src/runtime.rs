//! A runtime in which each task has a thread.

use std::future::Future;
use std::pin::Pin;

pub(crate) fn has_budget_remaining() -> bool {
    true
}

pub(crate) fn unconstrained<F>(task: F) -> F {
    task
}

pub(crate) fn spawn(work: Pin<Box<dyn Future<Output = ()> + Send>>) {
    loom::thread::spawn(move || loom::future::block_on(work));
}
