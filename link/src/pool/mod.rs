//! Connections on which we open the streams: which there are, and which is best for a flow.
//!
//! The guest dials them ([`Pool::dialling`]), and the host is given some ([`Pool::adopting`]).

pub(crate) mod connection;
mod jitter;
mod keep;
mod report;

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use h2::client::SendRequest;
use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::jitter::Jitter;
use odyn_proto::Endpoint;

use self::keep::keep;
use self::report::report;
use crate::chunk::Chunk;
use crate::client::LinkState;
use crate::config::ClientConfig;
use crate::crew::Crew;
use crate::delivery::Registry;
use crate::drain::Drain;
use crate::flush::Verdict;
use crate::losses::{Generation, Generations};
use crate::session::Shutdown;
use crate::{flush, lane};

/// What the tasks and the handles of a client share.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The other half, for the log.
    name: String,
    pub(crate) config: ClientConfig,
    pub(crate) state: watch::Sender<LinkState>,
    /// Flows that are open or being opened.
    pub(crate) flows: Arc<Flows>,
    /// How far the end is.
    pub(crate) drain: Drain,
    /// How the host half is told to end; the guest has its own way, [`Pool::drain`].
    pub(crate) shutdown: Shutdown,
    /// Cancelled: no more flows, no more dialling; what is open goes on.
    pub(crate) closing: CancellationToken,
    /// Cancelled: every connection is dropped.
    pub(crate) cut: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// How often the link has gone up or down, or down for another reason.
    changes: Arc<AtomicU64>,
    places: Mutex<Vec<Option<Connection>>>,
    pub(crate) generations: Generations,
    /// Flows that were given to crews.
    turns: AtomicUsize,
    /// Connections that still carry flows, those that left the pool included.
    live: Mutex<Vec<Weak<Shared>>>,
}

/// A connection on which flows can be opened.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) requests: SendRequest<Chunk>,
    /// The host's, when the connection began to be made.
    pub(crate) generation: Generation,
    shared: Arc<Shared>,
}

/// What a connection and its flows share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    load: AtomicUsize,
    /// Carries it, and flows on it.
    crew: Crew,
    /// It has carried a flow.
    used: AtomicBool,
    /// What the other half says of the flows' delivery, at the end.
    verdict: flush::Outcome,
    /// What its flows have not delivered on our side.
    registry: Arc<Registry>,
    /// A host's: what guests call it when they dial a lane.
    name: Option<lane::Named>,
}

/// What a flow needs from its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// TCP: may fill the buffers of the transport for as long as it likes.
    Bulk,
    /// UDP and DNS: few bytes that should not wait behind many.
    Quick,
    /// Whatever has the fewest flows.
    Any,
    /// Logs and status: as quick ones, but no flow that a drain waits for.
    Feed,
}

/// The connection that bulk flows keep away from.
const QUICK_PLACE: usize = 0;

impl Class {
    /// Whether the connection at a place is meant for it.
    fn is_meant(self, place: usize) -> bool {
        match self {
            Self::Bulk => place != QUICK_PLACE,
            Self::Quick | Self::Feed => place == QUICK_PLACE,
            Self::Any => true,
        }
    }
}

/// Connections that there are, and their places.
fn connections(places: &[Option<Connection>]) -> impl Iterator<Item = (usize, &Connection)> {
    let numbered = places.iter().enumerate();
    numbered.filter_map(|(place, connection)| connection.as_ref().map(|there| (place, there)))
}

/// Counts the flows of a client.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    count: AtomicUsize,
    none: Notify,
}

impl Flows {
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until no flow is open.
    pub(crate) async fn none(&self) {
        loop {
            let notified = self.none.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One flow's place in the counts.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    /// `None`: a feed, for which no drain waits.
    flows: Option<Arc<Flows>>,
}

impl Slot {
    fn new(shared: &Arc<Shared>, flows: Option<&Arc<Flows>>) -> Self {
        shared.load.fetch_add(1, Ordering::Relaxed);
        if let Some(flows) = flows {
            shared.used.store(true, Ordering::Relaxed);
            flows.count.fetch_add(1, Ordering::AcqRel);
        }
        Self {
            shared: Arc::clone(shared),
            flows: flows.cloned(),
        }
    }

    /// What the flows of this connection have not delivered on our side.
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.shared.registry
    }

    /// The header that tells a guest what it is called.
    pub(crate) fn lane_header(&self) -> Option<HeaderValue> {
        self.shared.name.as_ref().map(lane::Named::header)
    }

    /// What the other half will say of the delivery on this connection.
    pub(crate) fn outcome(&self) -> flush::Outcome {
        self.shared.verdict.clone()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.load.fetch_sub(1, Ordering::Relaxed);
        let Some(flows) = &self.flows else { return };
        if flows.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            flows.none.notify_waiters();
        }
    }
}

impl Pool {
    /// A pool that dials its connections and replaces those that end.
    pub(crate) fn dialling(endpoint: Endpoint, config: ClientConfig) -> Arc<Self> {
        let places = config.connections.max(1);
        let pool = Self::adopting(endpoint.to_string(), config, Shutdown::default());
        let endpoint = Arc::new(endpoint);
        for _ in 0..places {
            pool.tasks
                .spawn(keep(Arc::clone(&pool), Arc::clone(&endpoint)));
        }
        pool
    }

    /// A pool that has the connections it is given, with a name for the log.
    ///
    /// Must be called in a tokio runtime.
    pub(crate) fn adopting(name: String, config: ClientConfig, shutdown: Shutdown) -> Arc<Self> {
        let pool = Arc::new(Self {
            name,
            config,
            state: watch::Sender::new(LinkState::Down("not connected yet".into())),
            flows: Arc::default(),
            drain: Drain::new(),
            shutdown,
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            changes: Arc::default(),
            places: Mutex::default(),
            generations: Generations::default(),
            turns: AtomicUsize::new(0),
            live: Mutex::default(),
        });
        pool.tasks.spawn(report(
            pool.name.clone(),
            pool.state.subscribe(),
            Arc::clone(&pool.changes),
            pool.closing.clone(),
        ));
        pool
    }

    /// The best connection there is for a flow, and a place on it: of those that are meant for
    /// it, else of all, the one whose crew we are in, else the one with the fewest flows.
    pub(crate) fn pick(&self, class: Class) -> Option<(Connection, Slot)> {
        let places = self.places();
        let (_, best) = connections(&places).min_by_key(|(place, connection)| {
            let shared = &connection.shared;
            let load = shared.load.load(Ordering::Relaxed);
            (!class.is_meant(*place), !shared.crew.is_here(), load)
        })?;
        let counted = (class != Class::Feed).then_some(&self.flows);
        Some((best.clone(), Slot::new(&best.shared, counted)))
    }

    /// Has a flow carried with the connection that it will be opened on, in turns with the others
    /// that are meant for it.
    pub(crate) fn carry(&self, class: Class, flow: impl Future<Output = ()> + Send + 'static) {
        let crew = {
            let places = self.places();
            let meant = || connections(&places).filter(|(place, _)| class.is_meant(*place));
            let turn = self.turns.fetch_add(1, Ordering::Relaxed);
            meant()
                .nth(turn % meant().count().max(1))
                .map(|(_, connection)| connection.shared.crew.clone())
        };
        match crew {
            Some(crew) => crew.spawn(flow),
            None => drop(tokio::spawn(flow)),
        }
    }

    /// Takes a connection out of the pool: it opens no more flows.
    pub(crate) fn retire(&self, connection: &Connection) {
        for place in self.places().iter_mut() {
            place.take_if(|there| Arc::ptr_eq(&there.shared, &connection.shared));
        }
    }

    /// Waits for the verdict of every connection that there is, and returns them.
    pub(crate) async fn verdicts(&self) -> Vec<Arc<Verdict>> {
        let live: Vec<_> = self.live().iter().filter_map(Weak::upgrade).collect();
        let mut verdicts = Vec::with_capacity(live.len());
        for connection in live {
            verdicts.push(connection.verdict.wait().await);
        }
        verdicts
    }

    fn live(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Vec<Option<Connection>>> {
        // Nothing that could panic runs under the lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection into the pool.
    fn publish(
        &self,
        requests: SendRequest<Chunk>,
        registry: Arc<Registry>,
        generation: Generation,
    ) -> Connection {
        let lanes = self.config.lanes.as_ref();
        let name = lanes.and_then(|lanes| lanes.name(&registry));
        let connection = Connection {
            requests,
            generation,
            shared: Arc::new(Shared {
                registry,
                name,
                ..Shared::default()
            }),
        };
        let mut live = self.live();
        live.retain(|shared| shared.strong_count() > 0);
        live.push(Arc::downgrade(&connection.shared));
        drop(live);
        let mut places = self.places();
        match places.iter_mut().find(|place| place.is_none()) {
            Some(free) => *free = Some(connection.clone()),
            None => places.push(Some(connection.clone())),
        }
        drop(places);
        self.set_up();
        connection
    }

    /// Tells everyone who waits for a connection, also when others were there all the time: they
    /// may have looked between the end of one and the beginning of the next.
    fn set_up(&self) {
        self.state.send_modify(|state| {
            if *state != LinkState::Up {
                *state = LinkState::Up;
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    fn set_down_if_empty(&self, reason: &str) {
        if self.places().iter().any(Option::is_some) {
            return;
        }
        self.state.send_if_modified(|state| {
            let changed = !matches!(state, LinkState::Down(old) if old == reason);
            if changed {
                *state = LinkState::Down(reason.to_owned());
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
            changed
        });
    }
}
