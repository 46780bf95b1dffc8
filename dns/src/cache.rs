//! Upstream answers by name and type. The least recently used ones go first; time is passed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use odyn_proto::DnsName;

use crate::lru::Lru;
use crate::upstream_answer::UpstreamAnswer;

/// The question that an answer is for.
pub(crate) type CacheKey = (DnsName, RecordType);

/// Shortest time that an answer is used.
///
/// A time to live of zero is passed on to the client, but the flow that follows the query by a few
/// milliseconds does not ask again.
const MIN_LIFE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct CacheEntry {
    key: CacheKey,
    answer: Arc<UpstreamAnswer>,
    read_at: Instant,
}

#[derive(Debug)]
pub(crate) struct AnswerCache {
    limit: usize,
    weight: usize,
    entries: Vec<Option<CacheEntry>>,
    vacant: Vec<u32>,
    by_key: HashMap<CacheKey, u32>,
    used: Lru,
}

impl AnswerCache {
    /// A cache of about `limit` bytes at most.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            weight: 0,
            entries: Vec::new(),
            vacant: Vec::new(),
            by_key: HashMap::new(),
            used: Lru::new(),
        }
    }

    /// The answer for `key` if it is still good, and the seconds of life it has left.
    pub(crate) fn get(
        &mut self,
        key: &CacheKey,
        now: Instant,
    ) -> Option<(Arc<UpstreamAnswer>, u32)> {
        let index = *self.by_key.get(key)?;
        let entry = self.entries.get(index as usize)?.as_ref()?;
        let age = now.saturating_duration_since(entry.read_at);
        let life = Duration::from_secs(entry.answer.ttl.into());
        if age >= life.max(MIN_LIFE) {
            self.remove(index);
            return None;
        }
        // Rounded up, so that a fresh answer has its whole time to live.
        let left = life.saturating_sub(age) + Duration::from_millis(999);
        let left = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
        let found = (Arc::clone(&entry.answer), left);
        self.used.touch(index);
        Some(found)
    }

    /// Keeps an answer in place of an older one to the same question.
    pub(crate) fn put(&mut self, key: CacheKey, answer: Arc<UpstreamAnswer>, now: Instant) {
        if let Some(&old) = self.by_key.get(&key) {
            self.remove(old);
        }
        if answer.weight > self.limit {
            return;
        }
        while self.weight + answer.weight > self.limit {
            let Some(oldest) = self.used.oldest() else {
                break;
            };
            self.remove(oldest);
        }
        let index = match self.vacant.pop() {
            Some(index) => index,
            None => {
                let Ok(index) = u32::try_from(self.entries.len()) else {
                    return;
                };
                self.entries.push(None);
                index
            }
        };
        if let Some(place) = self.entries.get_mut(index as usize) {
            self.weight += answer.weight;
            self.by_key.insert(key.clone(), index);
            self.used.touch(index);
            *place = Some(CacheEntry {
                key,
                answer,
                read_at: now,
            });
        }
    }

    fn remove(&mut self, index: u32) {
        self.used.remove(index);
        if let Some(entry) = self.entries.get_mut(index as usize).and_then(Option::take) {
            self.weight -= entry.answer.weight;
            self.by_key.remove(&entry.key);
            self.vacant.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ede::Ede;

    fn answer(ttl: u32, weight: usize) -> Arc<UpstreamAnswer> {
        let mut answer = UpstreamAnswer::failure(Ede::new(0, ""));
        answer.ttl = ttl;
        answer.weight = weight;
        Arc::new(answer)
    }

    fn key(index: usize) -> CacheKey {
        (
            DnsName::parse(&format!("n{index}")).expect("a name"),
            RecordType::A,
        )
    }

    #[test]
    fn counts_down_and_forgets() {
        let start = Instant::now();
        let mut cache = AnswerCache::new(1000);
        cache.put(key(0), answer(30, 10), start);
        let left = |cache: &mut AnswerCache, millis| {
            let now = start + Duration::from_millis(millis);
            cache.get(&key(0), now).map(|(_, left)| left)
        };
        assert_eq!(left(&mut cache, 0), Some(30));
        assert_eq!(left(&mut cache, 999), Some(30));
        assert_eq!(left(&mut cache, 1000), Some(29));
        assert_eq!(left(&mut cache, 29_999), Some(1));
        assert_eq!(left(&mut cache, 30_000), None);
        assert_eq!((cache.weight, cache.by_key.len()), (0, 0));
    }

    #[test]
    fn a_time_to_live_of_zero_serves_the_flow_that_follows() {
        let start = Instant::now();
        let mut cache = AnswerCache::new(1000);
        cache.put(key(0), answer(0, 10), start);
        let soon = start + Duration::from_millis(500);
        assert!(matches!(cache.get(&key(0), soon), Some((_, 0))));
        assert!(cache.get(&key(0), start + MIN_LIFE).is_none());
    }

    #[test]
    fn types_are_apart_and_newer_answers_replace_older() {
        let start = Instant::now();
        let mut cache = AnswerCache::new(1000);
        cache.put(key(0), answer(5, 10), start);
        assert!(cache.get(&(key(0).0, RecordType::AAAA), start).is_none());
        cache.put(key(0), answer(7, 20), start);
        assert!(matches!(cache.get(&key(0), start), Some((_, 7))));
        assert_eq!(cache.weight, 20);
    }

    #[test]
    fn stays_within_its_weight_and_drops_the_least_used() {
        let start = Instant::now();
        let mut cache = AnswerCache::new(100);
        for index in 0..10 {
            cache.put(key(index), answer(60, 10), start);
        }
        assert!(cache.get(&key(0), start).is_some());
        cache.put(key(10), answer(60, 10), start);
        assert!(cache.get(&key(0), start).is_some(), "was used lately");
        assert!(cache.get(&key(1), start).is_none(), "was not");
        cache.put(key(11), answer(60, 101), start);
        assert!(cache.get(&key(11), start).is_none(), "heavier than all");
        for index in 0..1000 {
            cache.put(key(index), answer(60, index % 60), start);
            assert!(cache.weight <= 100 && cache.entries.len() <= 100);
        }
    }
}
