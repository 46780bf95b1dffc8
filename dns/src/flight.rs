//! Questions on their way to the upstream. Whoever asks what is already being asked waits for the
//! same answer.
//!
//! Each flight is a task of its own: it ends, fills the cache and tells all who wait whether or
//! not the client that started it is still there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};

use crate::cache::{Cache, Key};
use crate::clock::now;
use crate::config::Config;
use crate::ede::Ede;
use crate::facts::Facts;
use crate::upstream::{Upstream, UpstreamError};
use crate::{facts, name};

type Landing = watch::Receiver<Option<Arc<Facts>>>;

/// The upstream, its cache, and what is under way.
#[derive(Debug)]
pub(crate) struct Flights<U> {
    upstream: U,
    config: Config,
    cache: Mutex<Cache>,
    under_way: Mutex<HashMap<Key, Landing>>,
    permits: Arc<Semaphore>,
}

/// Facts now or later.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// From the cache, with the seconds they have left.
    Known(Arc<Facts>, u32),
    /// Under way.
    Waiting(Landing),
}

impl<U: Upstream> Flights<U> {
    pub(crate) fn new(upstream: U, config: Config) -> Self {
        Self {
            upstream,
            cache: Mutex::new(Cache::new(config.cache_bytes)),
            under_way: Mutex::new(HashMap::new()),
            permits: Arc::new(Semaphore::new(
                config.upstream_inflight.min(Semaphore::MAX_PERMITS),
            )),
            config,
        }
    }

    /// The facts about `key`: known, or asked for. Must run inside a tokio runtime.
    pub(crate) fn look_up(self: &Arc<Self>, key: &Key) -> Lookup {
        let known = lock(&self.cache).get(key, now());
        if let Some((facts, left)) = known {
            return Lookup::Known(facts, left);
        }
        let mut under_way = lock(&self.under_way);
        if let Some(landing) = under_way.get(key) {
            return Lookup::Waiting(landing.clone());
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let error = Ede::new(Ede::OTHER, "too many queries wait for the upstream");
            return Lookup::Known(Arc::new(Facts::failure(error)), 0);
        };
        let (land, landing) = watch::channel(None);
        under_way.insert(key.clone(), landing.clone());
        drop(under_way);
        // Made here, not in the task: a task that is dropped before its first poll must end the
        // flight too.
        let flight = Flight {
            flights: Arc::clone(self),
            key: key.clone(),
        };
        tokio::spawn(async move {
            let facts = Arc::new(flight.flights.ask(&flight.key).await);
            lock(&flight.flights.cache).put(flight.key.clone(), Arc::clone(&facts), now());
            drop(flight);
            land.send_replace(Some(facts));
            drop(permit);
        });
        Lookup::Waiting(landing)
    }

    async fn ask(&self, key: &Key) -> Facts {
        let (name, qtype) = key;
        let question = name::wire(name)
            .ok()
            .and_then(|name| Some((facts::question(name.clone(), *qtype, 1232)?, name)));
        let Some(((id, query), name)) = question else {
            return Facts::failure(Ede::new(Ede::OTHER, "the query cannot be written"));
        };
        let exchange = self.upstream.exchange(query);
        let answer = match tokio::time::timeout(self.config.upstream_timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(UpstreamError::Timeout),
        };
        let (code, text) = match answer {
            Ok(bytes) => match Facts::read(&bytes, id, &name, *qtype) {
                Ok(facts) => return facts,
                Err(bad) => (Ede::INVALID_DATA, bad.to_string()),
            },
            Err(error @ UpstreamError::Timeout) => (Ede::NO_REACHABLE_AUTHORITY, error.to_string()),
            Err(error @ UpstreamError::Unavailable(_)) => (Ede::NETWORK_ERROR, error.to_string()),
        };
        tracing::debug!(%name, %qtype, error = text, "upstream lookup failed");
        Facts::failure(Ede::new(code, text))
    }
}

/// Waits for a flight's end. The facts are fresh then.
pub(crate) async fn landed(mut landing: Landing) -> Arc<Facts> {
    match landing.wait_for(Option::is_some).await {
        Ok(facts) => facts.as_ref().map(Arc::clone),
        Err(_) => None,
    }
    .unwrap_or_else(|| {
        let error = Ede::new(Ede::OTHER, "the lookup was cut off");
        Arc::new(Facts::failure(error))
    })
}

/// Takes the flight off the list however it ends.
struct Flight<U> {
    flights: Arc<Flights<U>>,
    key: Key,
}

impl<U> Drop for Flight<U> {
    fn drop(&mut self) {
        lock(&self.flights.under_way).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in the cache or the list panics half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
