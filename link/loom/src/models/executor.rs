//! The connection executor: no wake is lost, and no task is polled after it has ended.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use loom::future::{AtomicWaker, block_on};
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use crate::executor::ConnectionExecutor;

/// An event that one thread waits for and another one brings about.
#[derive(Clone)]
struct Event(Arc<EventState>);

struct EventState {
    has_happened: AtomicBool,
    waker: AtomicWaker,
}

impl Event {
    fn new() -> Self {
        Self(Arc::new(EventState {
            has_happened: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }))
    }

    fn happen(&self) {
        self.0.has_happened.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    /// Panics when it is polled once more after it was ready.
    fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let state = Arc::clone(&self.0);
        let mut is_over = false;
        poll_fn(move |cx| {
            assert!(!is_over, "polled after its end");
            state.waker.register_by_ref(cx.waker());
            if state.has_happened.load(Ordering::Acquire) {
                is_over = true;
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }
}

/// A thread wakes a task; the task wakes the driver.
pub(crate) fn wake() {
    let (first, second) = (Event::new(), Event::new());
    let executor = ConnectionExecutor::default();
    let waiting = first.wait();
    let done = second.clone();
    executor.spawn(async move {
        waiting.await;
        done.happen();
    });
    let waker = thread::spawn(move || first.happen());
    block_on(executor.run(second.wait()));
    waker.join().unwrap();
}

/// Two threads wake the driver and a task.
pub(crate) fn wakes() {
    let (task, driver, done) = (Event::new(), Event::new(), Event::new());
    let executor = ConnectionExecutor::default();
    let (waiting, ended) = (task.wait(), done.clone());
    executor.spawn(async move {
        waiting.await;
        ended.happen();
    });
    let one = thread::spawn({
        let driver = driver.clone();
        move || driver.happen()
    });
    let two = thread::spawn(move || task.happen());
    block_on(executor.run(async move {
        driver.wait().await;
        done.wait().await;
    }));
    one.join().unwrap();
    two.join().unwrap();
}

/// Two tasks come from another thread; the driver waits for both.
pub(crate) fn spawn() {
    let (count, done) = (Arc::new(AtomicUsize::new(0)), Event::new());
    let executor = ConnectionExecutor::default();
    let comes = thread::spawn({
        let (executor, done) = (executor.clone(), done.clone());
        move || {
            for _ in 0..2 {
                let (count, done) = (Arc::clone(&count), done.clone());
                executor.spawn(async move {
                    if count.fetch_add(1, Ordering::AcqRel) == 1 {
                        done.happen();
                    }
                });
            }
        }
    });
    block_on(executor.run(done.wait()));
    comes.join().unwrap();
}

/// A task is left when the executor ends, and is woken just then.
pub(crate) fn wake_at_the_end() {
    let (event, done) = (Event::new(), Event::new());
    let executor = ConnectionExecutor::default();
    let (waiting, ended) = (event.wait(), done.clone());
    executor.spawn(async move {
        waiting.await;
        ended.happen();
    });
    let waker = thread::spawn(move || event.happen());
    block_on(executor.run(async {}));
    block_on(done.wait());
    waker.join().unwrap();
}

/// A task comes from another thread when the executor ends.
pub(crate) fn spawn_at_the_end() {
    let done = Event::new();
    let executor = ConnectionExecutor::default();
    let comes = thread::spawn({
        let (executor, done) = (executor.clone(), done.clone());
        move || executor.spawn(async move { done.happen() })
    });
    block_on(executor.run(async {}));
    block_on(done.wait());
    comes.join().unwrap();
}
