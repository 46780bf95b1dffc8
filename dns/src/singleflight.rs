//! Queries to the upstream. Clients that ask the same question wait for the same query.
//!
//! Each query is a task of its own: it ends, fills the cache and wakes all clients that wait,
//! whether or not the client that started it is still there.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::cache::{AnswerCache, CacheKey};
use crate::clock::now;
use crate::config::Config;
use crate::ede::Ede;
use crate::upstream::{Upstream, UpstreamError};
use crate::upstream_answer::UpstreamAnswer;
use crate::{name, upstream_answer};

/// The receiver of a query's answer.
pub(crate) type AnswerReceiver = watch::Receiver<Option<Arc<UpstreamAnswer>>>;

/// The upstream, its cache, and the queries in flight.
#[derive(Debug)]
pub(crate) struct Singleflight<U> {
    upstream: U,
    config: Config,
    cache: Mutex<AnswerCache>,
    in_flight: Mutex<HashMap<CacheKey, AnswerReceiver>>,
    permits: Arc<Semaphore>,
}

/// The answer to a question, now or later.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// From the cache, with the seconds that it has left.
    Known(Arc<UpstreamAnswer>, u32),
    /// The query is in flight.
    Waiting(AnswerReceiver),
}

impl<U: Upstream> Singleflight<U> {
    pub(crate) fn new(upstream: U, config: Config) -> Self {
        Self {
            upstream,
            cache: Mutex::new(AnswerCache::new(config.cache_bytes)),
            in_flight: Mutex::new(HashMap::new()),
            permits: Arc::new(Semaphore::new(
                config.upstream_inflight.min(Semaphore::MAX_PERMITS),
            )),
            config,
        }
    }

    /// Finds the answer in the cache, or asks the upstream. Must run inside a tokio runtime.
    pub(crate) fn look_up(self: &Arc<Self>, key: &CacheKey) -> Lookup {
        let known = self.cache.lock().get(key, now());
        if let Some((answer, left)) = known {
            return Lookup::Known(answer, left);
        }
        let mut in_flight = self.in_flight.lock();
        if let Some(answer) = in_flight.get(key) {
            return Lookup::Waiting(answer.clone());
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            let error = Ede::new(Ede::OTHER, "too many queries wait for the upstream");
            return Lookup::Known(Arc::new(UpstreamAnswer::failure(error)), 0);
        };
        let (sender, answer) = watch::channel(None);
        in_flight.insert(key.clone(), answer.clone());
        drop(in_flight);
        // Made outside the task: a task that is dropped before its first poll must also
        // remove the query from the list.
        let guard = InFlightQuery {
            queries: Arc::clone(self),
            key: key.clone(),
        };
        tokio::spawn(async move {
            let answer = Arc::new(guard.queries.ask(&guard.key).await);
            let key = guard.key.clone();
            guard
                .queries
                .cache
                .lock()
                .put(key, Arc::clone(&answer), now());
            drop(guard);
            sender.send_replace(Some(answer));
            drop(permit);
        });
        Lookup::Waiting(answer)
    }

    async fn ask(&self, key: &CacheKey) -> UpstreamAnswer {
        let (name, qtype) = key;
        let question = name::wire(name)
            .and_then(|name| Some((upstream_answer::question(name.clone(), *qtype, 1232)?, name)));
        let Some(((id, query), name)) = question else {
            return UpstreamAnswer::failure(Ede::new(Ede::OTHER, "the query cannot be written"));
        };
        let exchange = self.upstream.exchange(query);
        let answer = match tokio::time::timeout(self.config.upstream_timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(UpstreamError::Timeout),
        };
        let (code, text) = match answer {
            Ok(bytes) => match UpstreamAnswer::read(&bytes, id, &name, *qtype) {
                Ok(answer) => return answer,
                Err(bad) => (Ede::INVALID_DATA, bad.to_string()),
            },
            Err(error @ UpstreamError::Timeout) => (Ede::NO_REACHABLE_AUTHORITY, error.to_string()),
            Err(error @ UpstreamError::Unavailable(_)) => (Ede::NETWORK_ERROR, error.to_string()),
        };
        tracing::debug!(%name, %qtype, error = text, "upstream lookup failed");
        UpstreamAnswer::failure(Ede::new(code, text))
    }
}

/// Waits for the answer of a query, which is then fresh.
pub(crate) async fn received(mut answer: AnswerReceiver) -> Arc<UpstreamAnswer> {
    match answer.wait_for(Option::is_some).await {
        Ok(answer) => answer.as_ref().map(Arc::clone),
        Err(_) => None,
    }
    .unwrap_or_else(|| {
        let error = Ede::new(Ede::OTHER, "the lookup was cut off");
        Arc::new(UpstreamAnswer::failure(error))
    })
}

/// Removes a query from the list, however the query ends.
struct InFlightQuery<U> {
    queries: Arc<Singleflight<U>>,
    key: CacheKey,
}

impl<U> Drop for InFlightQuery<U> {
    fn drop(&mut self) {
        self.queries.in_flight.lock().remove(&self.key);
    }
}
