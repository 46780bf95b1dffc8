//! The connections on which this half opens streams, and the choice among them.
//!
//! The guest dials them ([`Pool::dialling`]); the host is given them ([`Pool::adopting`]).

pub(crate) mod driver;
pub(crate) mod jitter;
mod log;
mod peer_epoch;
pub(crate) mod reconnect;
pub(crate) mod request;
pub(crate) mod state;

use std::future::Future;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::Tuning;
use crate::drain::delivery::DeliveryTable;
use crate::drain::flush::FlushReport;
use crate::drain::guard::GuardCount;
use crate::drain::{Phase, PhaseReached, Trigger, Watch};
use crate::flow::lane::HostLanes;
use crate::flow::lease::{ConnectionState, StreamLease};
use crate::http2::chunk::Chunk;
use crate::pool::log::report;
use crate::pool::peer_epoch::{Epoch, PeerEpochs};
use crate::pool::reconnect::{Redial, keep};
use crate::pool::state::LinkState;

/// Settings of a pool.
#[derive(Debug)]
pub(crate) struct PoolConfig {
    pub(crate) tuning: Tuning,
    /// Longest wait for a connection before opening a flow fails.
    pub(crate) open_wait: Duration,
    /// Longest wait for a flow to be opened, the wait for a connection included.
    pub(crate) open_timeout: Duration,
    /// A host's: where its guest finds the lanes of the flows that it opens.
    pub(crate) lanes: Option<Arc<HostLanes>>,
}

/// A handle of a pool. When the last is dropped, the pool closes.
#[derive(Debug, Clone)]
pub(crate) struct PoolHandle {
    pool: Arc<Pool>,
    _closes: Arc<CloseOnDrop>,
}

/// Closes a pool when dropped.
#[derive(Debug)]
struct CloseOnDrop(Trigger);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0
            .advance(Phase::Draining, Instant::now(), Duration::MAX);
    }
}

impl Deref for PoolHandle {
    type Target = Arc<Pool>;

    fn deref(&self) -> &Arc<Pool> {
        &self.pool
    }
}

/// What the tasks and the handles of a pool share.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The other half's name for the log.
    name: String,
    pub(crate) config: PoolConfig,
    pub(crate) state: watch::Sender<LinkState>,
    /// Flows that are open or being opened.
    pub(crate) flows: Arc<GuardCount>,
    /// The guest's drain. It never begins in a pool of a host, which ends by `end` alone.
    pub(crate) drain: Watch,
    /// The pool's own end. `Draining`: no more flows, no more dialling; what is open goes on.
    /// `Forced`: every connection is dropped.
    end: Trigger,
    pub(crate) tasks: TaskTracker,
    /// Number of changes of the link's state.
    changes: Arc<AtomicU64>,
    places: Mutex<Vec<Option<PooledConnection>>>,
    pub(crate) peer_epochs: PeerEpochs,
    /// Flows that were given to executors, which take turns.
    turns: AtomicUsize,
    /// Connections that still carry flows, those that left the pool included.
    live: Mutex<Vec<Weak<ConnectionState>>>,
}

/// A connection on which flows can be opened.
#[derive(Debug, Clone)]
pub(crate) struct PooledConnection {
    pub(crate) requests: SendRequest<Chunk>,
    /// The epoch of the host when the dial began.
    pub(crate) epoch: Epoch,
    shared: Arc<ConnectionState>,
}

/// What a flow needs from its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlowClass {
    /// TCP: a flow may fill the buffers of the transport for as long as it likes.
    Bulk,
    /// UDP and DNS: few bytes, which should not wait behind many.
    Quick,
    /// Takes the connection with the fewest flows.
    Any,
    /// Logs and status: as [`FlowClass::Quick`], but no drain waits for the flow.
    Feed,
}

/// The place of the connection that bulk flows avoid.
const QUICK_PLACE: usize = 0;

impl FlowClass {
    /// Whether the connection at `place` is meant for this class.
    fn is_meant(self, place: usize) -> bool {
        match self {
            Self::Bulk => place != QUICK_PLACE,
            Self::Quick | Self::Feed => place == QUICK_PLACE,
            Self::Any => true,
        }
    }
}

/// The open connections with their places.
fn connections(
    places: &[Option<PooledConnection>],
) -> impl Iterator<Item = (usize, &PooledConnection)> {
    let numbered = places.iter().enumerate();
    numbered.filter_map(|(place, connection)| connection.as_ref().map(|there| (place, there)))
}

impl Pool {
    /// Makes a pool that dials `count` connections and replaces those that end.
    pub(crate) fn dialling(
        config: PoolConfig,
        redial: Arc<Redial>,
        count: usize,
        drain: Watch,
    ) -> PoolHandle {
        let name = redial.endpoint.to_string();
        let handle = Self::adopting(name, config, drain);
        for _ in 0..count {
            let pool = Arc::clone(&handle);
            handle.tasks.spawn(keep(pool, Arc::clone(&redial)));
        }
        handle
    }

    /// Makes a pool without connections, and with a name for the log.
    ///
    /// Must be called in a tokio runtime.
    pub(crate) fn adopting(name: String, config: PoolConfig, drain: Watch) -> PoolHandle {
        let pool = Arc::new(Self {
            name,
            config,
            state: watch::Sender::new(LinkState::Down("not connected yet".into())),
            flows: Arc::default(),
            drain,
            end: Trigger::default(),
            tasks: TaskTracker::new(),
            changes: Arc::default(),
            places: Mutex::default(),
            peer_epochs: PeerEpochs::default(),
            turns: AtomicUsize::new(0),
            live: Mutex::default(),
        });
        pool.tasks.spawn(report(
            pool.name.clone(),
            pool.state.subscribe(),
            Arc::clone(&pool.changes),
            pool.closing(),
        ));
        PoolHandle {
            _closes: Arc::new(CloseOnDrop(pool.end.clone())),
            pool,
        }
    }

    /// Picks the best connection for a flow, with a lease on it. Connections that are meant for its
    /// class come first; among equals, the one whose executor runs the caller, else the one with
    /// the fewest flows.
    pub(crate) fn pick(&self, class: FlowClass) -> Option<(PooledConnection, StreamLease)> {
        let places = self.places();
        let (_, best) = connections(&places).min_by_key(|(place, connection)| {
            let shared = &connection.shared;
            let load = shared.load.load(Ordering::Relaxed);
            (!class.is_meant(*place), !shared.executor.is_current(), load)
        })?;
        let counted = (class != FlowClass::Feed).then_some(&self.flows);
        Some((best.clone(), StreamLease::new(&best.shared, counted)))
    }

    /// Runs a flow in the executor of a connection. The connections that are meant for its class
    /// take turns.
    pub(crate) fn carry(&self, class: FlowClass, flow: impl Future<Output = ()> + Send + 'static) {
        let executor = {
            let places = self.places();
            let meant = || connections(&places).filter(|(place, _)| class.is_meant(*place));
            let turn = self.turns.fetch_add(1, Ordering::Relaxed);
            meant()
                .nth(turn % meant().count().max(1))
                .map(|(_, connection)| connection.shared.executor.clone())
        };
        match executor {
            Some(executor) => executor.spawn(flow),
            None => drop(tokio::spawn(flow)),
        }
    }

    /// Closes the connections: it opens no more streams, and waits up to `limit`. It waits until
    /// the open flows have ended and the other half has read everything. Returns how many flows it
    /// cut then.
    pub(crate) async fn close(&self, limit: Duration) -> usize {
        self.end.advance(Phase::Draining, Instant::now(), limit);
        self.tasks.close();
        // Each connection sends GOAWAY and is flushed.
        let closed = timeout(limit, self.tasks.wait()).await;
        let cut = if closed.is_ok() {
            0
        } else {
            self.flows.count()
        };
        self.end
            .advance(Phase::Forced, Instant::now(), Duration::ZERO);
        self.tasks.wait().await;
        cut
    }

    /// Waits until the pool closes.
    pub(crate) fn closing(&self) -> PhaseReached {
        self.end.watch().draining()
    }

    /// Waits until every connection is dropped.
    pub(crate) fn cut(&self) -> PhaseReached {
        self.end.watch().forced()
    }

    /// Whether the pool closes.
    pub(crate) fn is_closing(&self) -> bool {
        self.end.watch().is_draining()
    }

    /// Takes a connection out of the pool: no more flows are opened on it.
    pub(crate) fn retire(&self, connection: &PooledConnection) {
        for place in self.places().iter_mut() {
            place.take_if(|there| Arc::ptr_eq(&there.shared, &connection.shared));
        }
    }

    /// Waits for the flush report of each live connection, and returns the reports.
    pub(crate) async fn flush_reports(&self) -> Vec<Arc<FlushReport>> {
        let live: Vec<_> = self.live().iter().filter_map(Weak::upgrade).collect();
        let mut flush_reports = Vec::with_capacity(live.len());
        for connection in live {
            flush_reports.push(connection.flush_result.wait().await);
        }
        flush_reports
    }

    fn live(&self) -> MutexGuard<'_, Vec<Weak<ConnectionState>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Vec<Option<PooledConnection>>> {
        // Nothing that could panic runs under the lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a connection into the pool.
    fn publish(
        &self,
        requests: SendRequest<Chunk>,
        deliveries: Arc<DeliveryTable>,
        epoch: Epoch,
    ) -> PooledConnection {
        let lanes = self.config.lanes.as_ref();
        let name = lanes.and_then(|lanes| lanes.name(&deliveries));
        let connection = PooledConnection {
            requests,
            epoch,
            shared: Arc::new(ConnectionState {
                deliveries,
                name,
                ..ConnectionState::default()
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

    /// Wakes each request that waits, even when the pool had a connection all along. A
    /// request may have looked between the end of one connection and the start of the next.
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
