//! The guest's connections to the host: dialled, watched, replaced.
//!
//! Each place in the pool has a task that dials, publishes the connection, and drives it until it
//! ends or the host says that it will take no more flows (GOAWAY). Then the place dials again at
//! once, while the old connection is driven on until its last flow has ended.

use std::{
    collections::hash_map::RandomState,
    future::poll_fn,
    hash::BuildHasher,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use h2::{
    PingPong,
    client::{self, SendRequest},
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    chunk::Chunk,
    client::LinkState,
    config::{ClientConfig, MAX_HEADER_LIST, MAX_WINDOW, RESET_MEMORY, RESET_STREAMS},
    dial::dial,
    endpoint::Endpoint,
    error::LinkError,
    keepalive::{Pulse, keepalive},
    transport::Transport,
};

/// What the tasks and the handles of a client share.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) endpoint: Endpoint,
    pub(crate) config: ClientConfig,
    pub(crate) state: watch::Sender<LinkState>,
    /// Flows that are open or being opened.
    pub(crate) flows: Arc<Flows>,
    /// Cancelled: no more flows, no more dialling; what is open goes on.
    pub(crate) closing: CancellationToken,
    /// Cancelled: every connection is dropped.
    pub(crate) cut: CancellationToken,
    pub(crate) tasks: TaskTracker,
    places: Mutex<Vec<Option<Connection>>>,
}

/// A connection on which flows can be opened.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) requests: SendRequest<Chunk>,
    load: Arc<AtomicUsize>,
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
    load: Arc<AtomicUsize>,
    flows: Arc<Flows>,
}

impl Slot {
    fn new(load: &Arc<AtomicUsize>, flows: &Arc<Flows>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        flows.count.fetch_add(1, Ordering::AcqRel);
        Self {
            load: Arc::clone(load),
            flows: Arc::clone(flows),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        if self.flows.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.flows.none.notify_waiters();
        }
    }
}

impl Pool {
    pub(crate) fn new(endpoint: Endpoint, config: ClientConfig) -> Arc<Self> {
        let places = config.connections.max(1);
        let pool = Arc::new(Self {
            endpoint,
            config,
            state: watch::Sender::new(LinkState::Down("not connected yet".into())),
            flows: Arc::default(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            places: Mutex::new((0..places).map(|_| None).collect()),
        });
        for place in 0..places {
            pool.tasks.spawn(keep(Arc::clone(&pool), place));
        }
        pool
    }

    /// The connection with the fewest flows, and a place on it.
    pub(crate) fn pick(&self) -> Option<(Connection, Slot)> {
        let places = self.places();
        let best = places
            .iter()
            .flatten()
            .min_by_key(|c| c.load.load(Ordering::Relaxed))?;
        Some((best.clone(), Slot::new(&best.load, &self.flows)))
    }

    /// Takes a connection out of the pool: it opens no more flows.
    pub(crate) fn retire(&self, connection: &Connection) {
        for place in self.places().iter_mut() {
            place.take_if(|there| Arc::ptr_eq(&there.load, &connection.load));
        }
    }

    fn places(&self) -> MutexGuard<'_, Vec<Option<Connection>>> {
        // Nothing that could panic runs under the lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, place: usize, connection: Option<Connection>) {
        let mut places = self.places();
        if let Some(slot) = places.get_mut(place) {
            *slot = connection;
        }
    }

    fn set_up(&self) {
        let changed = self.state.send_if_modified(|state| {
            let was_down = *state != LinkState::Up;
            *state = LinkState::Up;
            was_down
        });
        if changed {
            info!(endpoint = %self.endpoint, "link is up");
        }
    }

    fn set_down_if_empty(&self, reason: &str) {
        if self.places().iter().any(Option::is_some) {
            return;
        }
        let changed = self.state.send_if_modified(|state| {
            let changed = !matches!(state, LinkState::Down(old) if old == reason);
            *state = LinkState::Down(reason.to_owned());
            changed
        });
        if changed {
            warn!(endpoint = %self.endpoint, reason, "link is down");
        }
    }
}

/// Keeps one place of the pool filled.
async fn keep(pool: Arc<Pool>, place: usize) {
    let mut pause = pool.config.backoff_min;
    let mut jitter = Jitter::new();
    while !pool.closing.is_cancelled() {
        let opened = tokio::select! {
            () = pool.closing.cancelled() => break,
            opened = open(&pool) => opened,
        };
        match opened {
            Ok(connection) => {
                pause = pool.config.backoff_min;
                let reason = drive(&pool, place, connection).await;
                pool.publish(place, None);
                pool.set_down_if_empty(&reason);
                debug!(place, reason, "connection left the pool");
            }
            Err(reason) => pool.set_down_if_empty(&reason),
        }
        tokio::select! {
            () = pool.closing.cancelled() => break,
            () = sleep(jitter.spread(pause)) => {}
        }
        pause = (pause * 2).min(pool.config.backoff_max);
    }
    pool.publish(place, None);
}

/// A connection that has answered a PING.
struct Opened {
    requests: SendRequest<Chunk>,
    driver: client::Connection<Transport, Chunk>,
    pings: PingPong,
}

async fn open(pool: &Pool) -> Result<Opened, String> {
    let config = &pool.config;
    let transport = dial(&pool.endpoint, &config.tuning, config.dial_timeout)
        .await
        .map_err(|error| error.to_string())?;
    let limit = config.tuning.handshake_timeout;
    match timeout(limit, handshake(transport, config)).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(LinkError::Handshake(limit).to_string()),
    }
}

async fn handshake(transport: Transport, config: &ClientConfig) -> Result<Opened, LinkError> {
    let tuning = &config.tuning;
    let (requests, mut driver) = client::Builder::new()
        .initial_window_size(tuning.stream_window)
        .initial_connection_window_size(MAX_WINDOW)
        .max_frame_size(tuning.max_frame)
        .max_send_buffer_size(tuning.send_buffer)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(RESET_STREAMS))
        .reset_stream_duration(RESET_MEMORY)
        // The host opens no streams.
        .enable_push(false)
        .max_concurrent_streams(0)
        .handshake::<_, Chunk>(transport)
        .await?;
    let mut pings = driver
        .ping_pong()
        .ok_or(LinkError::Protocol("h2 gave no handle for its PINGs"))?;
    // A transport that connects says nothing about the other half: vsock proxies take every
    // connection. Its answer also means that its SETTINGS are known.
    let pong = pings.ping(h2::Ping::opaque());
    tokio::select! {
        pong = pong => { pong?; }
        ended = &mut driver => {
            ended?;
            return Err(LinkError::Protocol("the host closed the connection at once"));
        }
    }
    if !requests.is_extended_connect_protocol_enabled() {
        return Err(LinkError::Protocol(
            "the host does not offer extended CONNECT",
        ));
    }
    Ok(Opened {
        requests,
        driver,
        pings,
    })
}

/// Publishes a connection and drives it until it takes no more flows. Says why.
async fn drive(pool: &Arc<Pool>, place: usize, opened: Opened) -> String {
    let Opened {
        requests,
        mut driver,
        pings,
    } = opened;
    let mut watched = Some(requests.clone());
    pool.publish(
        place,
        Some(Connection {
            requests,
            load: Arc::default(),
        }),
    );
    pool.set_up();
    let mut pulse = Box::pin({
        let pool = Arc::clone(pool);
        async move {
            let last = async {
                pool.closing.cancelled().await;
                pool.flows.none().await;
            };
            keepalive(pings, &pool.config.tuning, last).await
        }
    });

    let progress = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut driver).poll(cx) {
            return Poll::Ready(Progress::Ended(ended));
        }
        // GOAWAY shows only on the handle for new streams.
        match watched.as_mut().map(|requests| requests.poll_ready(cx)) {
            Some(Poll::Ready(Err(error))) => Poll::Ready(Progress::Retired(error)),
            _ => Poll::Pending,
        }
    });
    let mut beats = true;
    let reason = tokio::select! {
        biased;
        progress = progress => match progress {
            Progress::Ended(Ok(())) => return "closed by the host".into(),
            Progress::Ended(Err(error)) => return error.to_string(),
            Progress::Retired(error) => {
                // The handle would keep the connection open behind its last flow.
                watched.take();
                error.to_string()
            }
        },
        pulse = &mut pulse => match pulse {
            Pulse::Dead(silence) => return LinkError::Dead(silence).to_string(),
            Pulse::Confirmed => {
                watched.take();
                beats = false;
                "closing".into()
            }
        },
        // The handle keeps the connection open until the host has confirmed all that we sent.
        () = pool.closing.cancelled() => "closing".into(),
    };
    pool.publish(place, None);
    let cut = pool.cut.clone();
    pool.tasks.spawn(async move {
        loop {
            tokio::select! {
                biased;
                ended = &mut driver => return debug!(?ended, "retired connection ended"),
                pulse = &mut pulse, if beats => match pulse {
                    Pulse::Confirmed => {
                        drop(watched.take());
                        beats = false;
                    }
                    Pulse::Dead(silence) => return debug!(?silence, "retired connection is dead"),
                },
                () = cut.cancelled() => return,
            }
        }
    });
    reason
}

enum Progress {
    Ended(Result<(), h2::Error>),
    Retired(h2::Error),
}

/// Spreads the attempts of many clients that lost the same host.
struct Jitter {
    random: RandomState,
    count: u64,
}

impl Jitter {
    fn new() -> Self {
        Self {
            random: RandomState::new(),
            count: 0,
        }
    }

    /// Between half of `pause` and one and a half.
    fn spread(&mut self, pause: Duration) -> Duration {
        self.count += 1;
        let thousandths = self.random.hash_one(self.count) % 1000;
        pause / 2 + pause * thousandths as u32 / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_range_and_moves() {
        let mut jitter = Jitter::new();
        let pause = Duration::from_secs(2);
        let spread: Vec<_> = (0..100).map(|_| jitter.spread(pause)).collect();
        assert!(
            spread
                .iter()
                .all(|p| (pause / 2..pause * 3 / 2).contains(p)),
            "{spread:?}"
        );
        assert!(spread.iter().any(|p| *p != spread[0]));
    }
}
