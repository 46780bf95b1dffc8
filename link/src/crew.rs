//! Flows that are carried together with the connection that they are on.
//!
//! The runtime has a queue for each of its threads, and runs first what was woken last. So of sixty
//! flows that have something to send, the first to run would wake the connection, which would write
//! that one frame, wake the other half with it, and be woken again by the next flow. And flows that
//! wait are stolen by a thread that has to be woken for it.
//!
//! A crew is one task of the runtime with a queue of its own, in which a connection waits behind the
//! flows that were ready before it: what they have to say goes in one write. There are as many crews
//! as connections, and they run side by side.
//!
//! Whoever is in a crew must end its turns by itself, as relays do ([`TURN`](crate::lane::TURN)): the
//! runtime counts only those of the crew as a whole. Long computations belong elsewhere.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;
use tokio::runtime::Handle;
use tokio::task::coop::{has_budget_remaining, unconstrained};
use tracing::error;

/// Turns within a turn: after so many, other tasks of the runtime have theirs.
const TURNS: usize = 256;

/// Room for members that is kept when there are none.
const ROOM: usize = 1024;

thread_local! {
    /// Which crew has its turn on this thread; 0: none.
    static HERE: Cell<usize> = const { Cell::new(0) };
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes members in. Clones are of the same crew.
#[derive(Clone, Default)]
pub(crate) struct Crew(Arc<Shared>);

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    queue: VecDeque<Item>,
    /// It has its turn, and looks at the queue by itself.
    is_awake: bool,
    waker: Option<Waker>,
    /// It takes nobody in any more.
    is_over: bool,
}

/// Whose turn it is.
enum Item {
    Lead,
    New(Work),
    Member(usize),
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").finish_non_exhaustive()
    }
}

impl Crew {
    /// Runs `lead`, and the members beside it. Members that are left when it is over, or dropped, go
    /// on in tasks of their own. To be called once.
    pub(crate) fn lead<F: Future>(&self, lead: F) -> Lead<F> {
        self.0.lock().queue.push_back(Item::Lead);
        Lead {
            shared: Arc::clone(&self.0),
            place: Place::new(&self.0, None),
            lead: Box::pin(lead),
            members: Slab::new(),
            round: VecDeque::new(),
        }
    }

    /// Takes a member in. To be called in a runtime.
    pub(crate) fn spawn(&self, member: impl Future<Output = ()> + Send + 'static) {
        // Else the first to have their turn would use up what the runtime allows all of them.
        let work: Work = Box::pin(unconstrained(member));
        if let Err(Item::New(work)) = self.0.push(Item::New(work)) {
            hand_over(work);
        }
    }

    /// Whether the caller is one of it, and has its turn.
    pub(crate) fn is_here(&self) -> bool {
        HERE.get() == self.0.id()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Gives the item back when it is too late.
    fn push(&self, item: Item) -> Result<(), Item> {
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

impl State {
    fn take_waker(&mut self) -> Option<Waker> {
        if self.is_awake {
            None
        } else {
            self.waker.take()
        }
    }
}

/// A member's, or the lead's, place in the queue.
struct Place {
    node: Arc<Node>,
    waker: Waker,
}

struct Node {
    crew: Arc<Shared>,
    /// `None`: the lead.
    member: Option<usize>,
    is_queued: AtomicBool,
}

impl Place {
    /// It is in the queue.
    fn new(crew: &Arc<Shared>, member: Option<usize>) -> Self {
        let node = Arc::new(Node {
            crew: Arc::clone(crew),
            member,
            is_queued: AtomicBool::new(true),
        });
        let waker = Waker::from(Arc::clone(&node));
        Self { node, waker }
    }

    /// From here on it may be queued again.
    fn leave_queue(&self) {
        // What was written before a wake that found it queued is seen from here on.
        self.node.is_queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Node {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let turn = self.member.map_or(Item::Lead, Item::Member);
            // Of a crew that is over, everybody has a task of its own.
            let _ = self.crew.push(turn);
        }
    }
}

/// A crew at work.
pub(crate) struct Lead<F: Future> {
    shared: Arc<Shared>,
    place: Place,
    lead: Pin<Box<F>>,
    members: Slab<Member>,
    /// Taken from the queue.
    round: VecDeque<Item>,
}

struct Member {
    place: Place,
    work: Work,
}

/// How a turn went.
enum Turn<T> {
    /// Nobody is ready.
    Asleep,
    /// Others of the runtime are to have a turn.
    Tired,
    Over(T),
}

impl<F: Future> Future for Lead<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _here = Here::enter(self.shared.id());
        self.wake_up(cx.waker());
        match self.turn() {
            Turn::Asleep => Poll::Pending,
            Turn::Tired => {
                self.shared.lock().is_awake = false;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::Over(output) => {
                self.end();
                Poll::Ready(output)
            }
        }
    }
}

impl<F: Future> Lead<F> {
    fn wake_up(&self, waker: &Waker) {
        let mut state = self.shared.lock();
        state.is_awake = true;
        if !state.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
    }

    fn turn(&mut self) -> Turn<F::Output> {
        for _ in 0..TURNS {
            match self.next() {
                None => return Turn::Asleep,
                Some(Item::New(work)) => self.take_in(work),
                Some(Item::Member(member)) => self.poll_member(member),
                Some(Item::Lead) => {
                    self.place.leave_queue();
                    let mut cx = Context::from_waker(&self.place.waker);
                    if let Poll::Ready(output) = self.lead.as_mut().poll(&mut cx) {
                        return Turn::Over(output);
                    }
                    if !has_budget_remaining() {
                        return Turn::Tired;
                    }
                }
            }
        }
        Turn::Tired
    }

    /// Whose turn it is; `None`, and asleep, when nobody is ready.
    fn next(&mut self) -> Option<Item> {
        if self.round.is_empty() {
            if self.round.capacity() > ROOM {
                self.round = VecDeque::new();
            }
            let mut state = self.shared.lock();
            std::mem::swap(&mut state.queue, &mut self.round);
            state.is_awake = !self.round.is_empty();
        }
        self.round.pop_front()
    }

    fn take_in(&mut self, work: Work) {
        let entry = self.members.vacant_entry();
        let member = entry.key();
        let place = Place::new(&self.shared, Some(member));
        entry.insert(Member { place, work });
        self.poll_member(member);
    }

    fn poll_member(&mut self, member: usize) {
        // One that has ended may be woken, and its number belong to another by now: a turn too many.
        let Some(Member { place, work }) = self.members.get_mut(member) else {
            return;
        };
        place.leave_queue();
        let mut cx = Context::from_waker(&place.waker);
        // As in a task of its own: the others go on.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)));
        match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(())) => {}
            Err(_) => error!("a flow failed; this is a bug"),
        }
        drop(self.members.remove(member));
        if self.members.is_empty() && self.members.capacity() > ROOM {
            self.members = Slab::new();
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
                Item::New(work) => Some(work),
                Item::Lead | Item::Member(_) => None,
            });
        // Each is polled once by its task: so nobody misses that it was woken.
        let members = self.members.drain().map(|member| member.work);
        members.chain(new).for_each(hand_over);
    }
}

impl<F: Future> Drop for Lead<F> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Gives work a task of its own. Without a runtime there is nothing that it could wait for.
fn hand_over(work: Work) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(work);
    }
}

/// Marks whose turn it is on this thread.
struct Here(usize);

impl Here {
    fn enter(crew: usize) -> Self {
        Self(HERE.replace(crew))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        HERE.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    #[tokio::test]
    async fn who_was_ready_before_the_lead_has_a_turn_before_it() {
        let crew = Crew::default();
        let (go, started) = tokio::sync::watch::channel(false);
        let (say, mut said) = mpsc::channel(16);
        for member in 1..=3 {
            let (mut started, say) = (started.clone(), say.clone());
            crew.spawn(async move {
                started.wait_for(|go| *go).await.unwrap();
                say.send(member).await.unwrap();
            });
        }
        let lead = crew.lead(async move {
            go.send_replace(true);
            let mut batches = Vec::new();
            while batches.iter().map(Vec::len).sum::<usize>() < 3 {
                let mut batch = Vec::new();
                said.recv_many(&mut batch, 16).await;
                batches.push(batch);
            }
            batches
        });
        let batches = lead.await;
        assert_eq!(batches.len(), 1, "{batches:?}");
    }

    #[tokio::test]
    async fn members_come_and_go_while_the_lead_waits_and_know_where_they_are() {
        let crew = Crew::default();
        let (say, mut said) = mpsc::channel(16);
        let inner = crew.clone();
        let lead = tokio::spawn(crew.lead(async move {
            let mut sum = 0;
            while sum < 6 {
                sum += said.recv().await.unwrap();
            }
            sum
        }));
        for number in 1..=3 {
            let (say, crew) = (say.clone(), inner.clone());
            inner.spawn(async move {
                assert!(crew.is_here());
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(number)).await;
                say.send(number).await.unwrap();
            });
        }
        assert!(!inner.is_here());
        assert_eq!(lead.await.unwrap(), 6);
    }

    #[tokio::test]
    async fn members_outlive_the_lead() {
        let crew = Crew::default();
        let (end, ended) = oneshot::channel::<()>();
        let lead = tokio::spawn(crew.lead(async move { ended.await.unwrap() }));
        let (go, mut going) = mpsc::channel::<()>(1);
        let (say, said) = oneshot::channel();
        crew.spawn(async move {
            going.recv().await.unwrap();
            say.send("done").unwrap();
        });
        tokio::task::yield_now().await;
        end.send(()).unwrap();
        lead.await.unwrap();
        go.send(()).await.unwrap();
        assert_eq!(said.await.unwrap(), "done");
        let (say, said) = oneshot::channel();
        crew.spawn(async move { say.send("late").unwrap() });
        assert_eq!(said.await.unwrap(), "late");
    }

    #[tokio::test]
    async fn members_outlive_a_lead_that_is_dropped() {
        let crew = Crew::default();
        let (say, said) = oneshot::channel();
        crew.spawn(async move {
            tokio::task::yield_now().await;
            say.send(()).unwrap();
        });
        drop(crew.lead(pending::<()>()));
        said.await.unwrap();
    }

    #[tokio::test]
    async fn a_member_that_fails_takes_nobody_with_it() {
        let crew = Crew::default();
        let (say, said) = oneshot::channel();
        crew.spawn(async { panic!("on purpose") });
        crew.spawn(async move { say.send(()).unwrap() });
        crew.lead(async move { said.await.unwrap() }).await;
    }

    #[tokio::test]
    async fn nobody_who_never_rests_keeps_others_from_their_turns() {
        let crew = Crew::default();
        let (say, said) = oneshot::channel();
        crew.spawn(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let other = tokio::spawn(async move { say.send(()).unwrap() });
        crew.lead(async move { said.await.unwrap() }).await;
        other.await.unwrap();
    }

    #[test]
    fn a_wake_from_another_thread_is_not_missed() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let crew = Crew::default();
        let (ask, mut asked) = mpsc::channel::<oneshot::Sender<u32>>(1);
        crew.spawn(async move {
            let mut count = 0;
            while let Some(answer) = asked.recv().await {
                count += 1;
                answer.send(count).unwrap();
            }
        });
        runtime.spawn(crew.lead(pending::<()>()));
        for expected in 1..=10_000 {
            let (answer, answered) = oneshot::channel();
            ask.blocking_send(answer).unwrap();
            assert_eq!(answered.blocking_recv().unwrap(), expected);
        }
    }
}
