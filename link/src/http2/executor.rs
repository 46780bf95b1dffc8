//! Flows that are carried together with the connection that they are on.
//!
//! The runtime has a queue for each of its threads, and runs first what was woken last. Suppose
//! that sixty flows have something to send. The first flow would wake the connection, which would
//! write that one frame, wake the other half with it, and be woken again by the next flow. Other
//! threads steal the flows that wait, and each theft wakes a thread.
//!
//! An executor is one task of the runtime with a queue of its own. Its connection waits there
//! behind the flows that were ready before it, and writes all their frames at once. Each connection
//! has an executor, and the executors run in parallel.
//!
//! A task in an executor must bound its own polls, as relays do
//! ([`POLL_BUDGET`](crate::flow::lane::POLL_BUDGET)): the runtime's budget counts the executor as a
//! whole. Long computations belong elsewhere.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;
use tracing::error;

use crate::runtime;
use crate::runtime::{has_budget_remaining, unconstrained};
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// Polls of tasks in one poll of the executor; other tasks follow.
const POLL_BUDGET: usize = 256;

/// Room for tasks that an executor without tasks keeps.
const MAX_IDLE_CAPACITY: usize = 1024;

thread_local! {
    /// The executor that runs on this thread; 0: none.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A handle that adds tasks to an executor. Clones belong to the same executor.
#[derive(Clone, Default)]
pub(crate) struct ConnectionExecutor(Arc<ExecutorShared>);

#[derive(Default)]
struct ExecutorShared(Mutex<ExecutorState>);

#[derive(Default)]
struct ExecutorState {
    queue: VecDeque<QueueItem>,
    /// The executor runs, and reads the queue without a wake.
    is_awake: bool,
    waker: Option<Waker>,
    /// The executor has ended and takes no more tasks.
    is_over: bool,
}

/// What the executor polls next.
enum QueueItem {
    Driver,
    New(Work),
    Task(usize),
}

impl fmt::Debug for ConnectionExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionExecutor").finish_non_exhaustive()
    }
}

impl ConnectionExecutor {
    /// Runs `driver`, and the tasks beside it. When the driver ends or is dropped, the remaining
    /// tasks continue in tasks of the runtime. Call this once.
    pub(crate) fn run<F: Future>(&self, driver: F) -> ExecutorDriver<F> {
        self.0.lock().queue.push_back(QueueItem::Driver);
        ExecutorDriver {
            shared: Arc::clone(&self.0),
            handle: TaskHandle::new(&self.0, None),
            driver: Box::pin(driver),
            tasks: Slab::new(),
            round: VecDeque::new(),
        }
    }

    /// Adds a task. Call this in a runtime.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Otherwise the first tasks would use up what the runtime allows all of them.
        let work: Work = Box::pin(unconstrained(task));
        if let Err(QueueItem::New(work)) = self.0.push(QueueItem::New(work)) {
            runtime::spawn(work);
        }
    }

    /// Whether the calling task runs in this executor.
    pub(crate) fn is_current(&self) -> bool {
        CURRENT.get() == self.0.id()
    }
}

impl ExecutorShared {
    fn lock(&self) -> MutexGuard<'_, ExecutorState> {
        self.0.lock()
    }

    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Queues an item. Returns it when the executor has ended.
    fn push(&self, item: QueueItem) -> Result<(), QueueItem> {
        let mut state = self.lock();
        if state.is_over {
            return Err(item);
        }
        state.queue.push_back(item);
        let waker = state.take_waker();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl ExecutorState {
    fn take_waker(&mut self) -> Option<Waker> {
        if self.is_awake {
            None
        } else {
            self.waker.take()
        }
    }
}

/// The handle of a task, or of the driver, in the queue.
struct TaskHandle {
    node: Arc<TaskWaker>,
    waker: Waker,
}

struct TaskWaker {
    executor: Arc<ExecutorShared>,
    /// The number of the task; `None` is the driver.
    task: Option<usize>,
    is_queued: AtomicBool,
}

impl TaskHandle {
    /// Makes a handle that is in the queue.
    fn new(executor: &Arc<ExecutorShared>, task: Option<usize>) -> Self {
        let node = Arc::new(TaskWaker {
            executor: Arc::clone(executor),
            task,
            is_queued: AtomicBool::new(true),
        });
        let waker = Waker::from(Arc::clone(&node));
        Self { node, waker }
    }

    /// Allows that a wake queues the task again.
    fn leave_queue(&self) {
        // The poll that follows sees what was written before a wake that found the task queued.
        self.node.is_queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let turn = self.task.map_or(QueueItem::Driver, QueueItem::Task);
            // The tasks of an executor that has ended are tasks of the runtime.
            let _ = self.executor.push(turn);
        }
    }
}

/// A running executor.
pub(crate) struct ExecutorDriver<F: Future> {
    shared: Arc<ExecutorShared>,
    handle: TaskHandle,
    driver: Pin<Box<F>>,
    tasks: Slab<ExecutorTask>,
    /// Items that were taken from the queue.
    round: VecDeque<QueueItem>,
}

struct ExecutorTask {
    handle: TaskHandle,
    work: Work,
}

/// How a poll of the executor ended.
enum ExecutorPoll<T> {
    /// No task is ready.
    Idle,
    /// Other tasks of the runtime are to run.
    Exhausted,
    Over(T),
}

impl<F: Future> Future for ExecutorDriver<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _here = CurrentExecutor::enter(self.shared.id());
        self.wake_up(cx.waker());
        match self.turn() {
            ExecutorPoll::Idle => Poll::Pending,
            ExecutorPoll::Exhausted => {
                self.shared.lock().is_awake = false;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            ExecutorPoll::Over(output) => {
                self.end();
                Poll::Ready(output)
            }
        }
    }
}

impl<F: Future> ExecutorDriver<F> {
    fn wake_up(&self, waker: &Waker) {
        let mut state = self.shared.lock();
        state.is_awake = true;
        if !state.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
    }

    fn turn(&mut self) -> ExecutorPoll<F::Output> {
        for _ in 0..POLL_BUDGET {
            match self.next() {
                None => return ExecutorPoll::Idle,
                Some(QueueItem::New(work)) => self.add_task(work),
                Some(QueueItem::Task(task)) => self.poll_task(task),
                Some(QueueItem::Driver) => {
                    self.handle.leave_queue();
                    let mut cx = Context::from_waker(&self.handle.waker);
                    if let Poll::Ready(output) = self.driver.as_mut().poll(&mut cx) {
                        return ExecutorPoll::Over(output);
                    }
                    if !has_budget_remaining() {
                        return ExecutorPoll::Exhausted;
                    }
                }
            }
        }
        ExecutorPoll::Exhausted
    }

    /// Takes the next item; `None`, and asleep, when no task is ready.
    fn next(&mut self) -> Option<QueueItem> {
        if self.round.is_empty() {
            if self.round.capacity() > MAX_IDLE_CAPACITY {
                self.round = VecDeque::new();
            }
            let mut state = self.shared.lock();
            std::mem::swap(&mut state.queue, &mut self.round);
            state.is_awake = !self.round.is_empty();
        }
        self.round.pop_front()
    }

    fn add_task(&mut self, work: Work) {
        let entry = self.tasks.vacant_entry();
        let task = entry.key();
        let handle = TaskHandle::new(&self.shared, Some(task));
        entry.insert(ExecutorTask { handle, work });
        self.poll_task(task);
    }

    fn poll_task(&mut self, task: usize) {
        // A wake may come for a task that has ended, and whose number another task has: that one is
        // polled once too often.
        let Some(ExecutorTask { handle, work }) = self.tasks.get_mut(task) else {
            return;
        };
        handle.leave_queue();
        let mut cx = Context::from_waker(&handle.waker);
        // As for a task of the runtime: a panic does not end the other tasks.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)));
        match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(())) => {}
            Err(_) => error!("a flow failed; this is a bug"),
        }
        drop(self.tasks.remove(task));
        if self.tasks.is_empty() && self.tasks.capacity() > MAX_IDLE_CAPACITY {
            self.tasks = Slab::new();
        }
    }

    fn end(&mut self) {
        let mut state = self.shared.lock();
        if std::mem::replace(&mut state.is_over, true) {
            return;
        }
        let queue = std::mem::take(&mut state.queue);
        state.waker = None;
        drop(state);
        let round = std::mem::take(&mut self.round);
        let new = round
            .into_iter()
            .chain(queue)
            .filter_map(|item| match item {
                QueueItem::New(work) => Some(work),
                QueueItem::Driver | QueueItem::Task(_) => None,
            });
        // The runtime polls each at least once, so no task misses a wake.
        let tasks = self.tasks.drain().map(|task| task.work);
        tasks.chain(new).for_each(runtime::spawn);
    }
}

impl<F: Future> Drop for ExecutorDriver<F> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Marks which executor runs on this thread.
struct CurrentExecutor(usize);

impl CurrentExecutor {
    fn enter(executor: usize) -> Self {
        Self(CURRENT.replace(executor))
    }
}

impl Drop for CurrentExecutor {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn a_task_that_was_ready_before_the_driver_runs_before_it() {
        let executor = ConnectionExecutor::default();
        let (go, started) = tokio::sync::watch::channel(false);
        let (say, mut said) = mpsc::channel(16);
        for task in 1..=3 {
            let (mut started, say) = (started.clone(), say.clone());
            executor.spawn(async move {
                started.wait_for(|go| *go).await.unwrap();
                say.send(task).await.unwrap();
            });
        }
        let driver = executor.run(async move {
            go.send_replace(true);
            let mut batches = Vec::new();
            while batches.iter().map(Vec::len).sum::<usize>() < 3 {
                let mut batch = Vec::new();
                said.recv_many(&mut batch, 16).await;
                batches.push(batch);
            }
            batches
        });
        let batches = driver.await;
        assert_eq!(batches.len(), 1, "{batches:?}");
    }

    #[tokio::test]
    async fn members_come_and_go_while_the_lead_waits_and_know_where_they_are() {
        let executor = ConnectionExecutor::default();
        let (say, mut said) = mpsc::channel(16);
        let inner = executor.clone();
        let driver = tokio::spawn(executor.run(async move {
            let mut sum = 0;
            while sum < 6 {
                sum += said.recv().await.unwrap();
            }
            sum
        }));
        for number in 1..=3 {
            let (say, executor) = (say.clone(), inner.clone());
            inner.spawn(async move {
                assert!(executor.is_current());
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(number)).await;
                say.send(number).await.unwrap();
            });
        }
        assert!(!inner.is_current());
        assert_eq!(driver.await.unwrap(), 6);
    }

    #[tokio::test]
    async fn members_outlive_the_lead() {
        let executor = ConnectionExecutor::default();
        let (end, ended) = oneshot::channel::<()>();
        let driver = tokio::spawn(executor.run(async move { ended.await.unwrap() }));
        let (go, mut going) = mpsc::channel::<()>(1);
        let (say, said) = oneshot::channel();
        executor.spawn(async move {
            going.recv().await.unwrap();
            say.send("done").unwrap();
        });
        tokio::task::yield_now().await;
        end.send(()).unwrap();
        driver.await.unwrap();
        go.send(()).await.unwrap();
        assert_eq!(said.await.unwrap(), "done");
        let (say, said) = oneshot::channel();
        executor.spawn(async move { say.send("late").unwrap() });
        assert_eq!(said.await.unwrap(), "late");
    }

    #[tokio::test]
    async fn members_outlive_a_lead_that_is_dropped() {
        let executor = ConnectionExecutor::default();
        let (say, said) = oneshot::channel();
        executor.spawn(async move {
            tokio::task::yield_now().await;
            say.send(()).unwrap();
        });
        drop(executor.run(pending::<()>()));
        said.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_no_other_task() {
        let executor = ConnectionExecutor::default();
        let (say, said) = oneshot::channel();
        executor.spawn(async { panic!("on purpose") });
        executor.spawn(async move { say.send(()).unwrap() });
        executor.run(async move { said.await.unwrap() }).await;
    }

    #[tokio::test]
    async fn a_task_that_is_always_ready_lets_others_run() {
        let executor = ConnectionExecutor::default();
        let (say, said) = oneshot::channel();
        executor.spawn(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let other = tokio::spawn(async move { say.send(()).unwrap() });
        executor.run(async move { said.await.unwrap() }).await;
        other.await.unwrap();
    }

    #[test]
    fn a_wake_from_another_thread_is_not_missed() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let executor = ConnectionExecutor::default();
        let (ask, mut asked) = mpsc::channel::<oneshot::Sender<u32>>(1);
        executor.spawn(async move {
            let mut count = 0;
            while let Some(answer) = asked.recv().await {
                count += 1;
                answer.send(count).unwrap();
            }
        });
        runtime.spawn(executor.run(pending::<()>()));
        for expected in 1..=10_000 {
            let (answer, answered) = oneshot::channel();
            ask.blocking_send(answer).unwrap();
            assert_eq!(answered.blocking_recv().unwrap(), expected);
        }
    }
}
