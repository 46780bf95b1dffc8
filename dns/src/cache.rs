//! Facts by name and type, least recently used out first. Knows no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;

use crate::facts::Facts;
use crate::lru::Lru;

/// What facts are about.
pub(crate) type Key = (Arc<str>, RecordType);

/// For how long facts can be used at least. An answer with a time to live of zero is told so to
/// the client, but the flow that follows a query by a few milliseconds need not ask again.
const LEAST: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    key: Key,
    facts: Arc<Facts>,
    read_at: Instant,
}

#[derive(Debug)]
pub(crate) struct Cache {
    limit: usize,
    weight: usize,
    entries: Vec<Option<Entry>>,
    vacant: Vec<u32>,
    by_key: HashMap<Key, u32>,
    used: Lru,
}

impl Cache {
    /// Keeps at most about `limit` bytes of facts.
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

    /// The facts about `key` if they are still good, and for how many more seconds they may be
    /// passed on.
    pub(crate) fn get(&mut self, key: &Key, now: Instant) -> Option<(Arc<Facts>, u32)> {
        let index = *self.by_key.get(key)?;
        let entry = self.entries.get(index as usize)?.as_ref()?;
        let age = now.saturating_duration_since(entry.read_at);
        let life = Duration::from_secs(entry.facts.ttl.into());
        if age >= life.max(LEAST) {
            self.remove(index);
            return None;
        }
        // Up to the next second, so that a fresh answer has its whole time to live.
        let left = life.saturating_sub(age) + Duration::from_millis(999);
        let left = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
        let found = (Arc::clone(&entry.facts), left);
        self.used.touch(index);
        Some(found)
    }

    /// Remembers `facts`, in the place of older ones about the same.
    pub(crate) fn put(&mut self, key: Key, facts: Arc<Facts>, now: Instant) {
        if let Some(&old) = self.by_key.get(&key) {
            self.remove(old);
        }
        if facts.weight > self.limit {
            return;
        }
        while self.weight + facts.weight > self.limit {
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
            self.weight += facts.weight;
            self.by_key.insert(key.clone(), index);
            self.used.touch(index);
            *place = Some(Entry {
                key,
                facts,
                read_at: now,
            });
        }
    }

    fn remove(&mut self, index: u32) {
        self.used.remove(index);
        if let Some(entry) = self.entries.get_mut(index as usize).and_then(Option::take) {
            self.weight -= entry.facts.weight;
            self.by_key.remove(&entry.key);
            self.vacant.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ede::Ede;

    fn facts(ttl: u32, weight: usize) -> Arc<Facts> {
        let mut facts = Facts::failure(Ede::new(0, ""));
        facts.ttl = ttl;
        facts.weight = weight;
        Arc::new(facts)
    }

    fn key(index: usize) -> Key {
        (format!("n{index}").into(), RecordType::A)
    }

    #[test]
    fn counts_down_and_forgets() {
        let start = Instant::now();
        let mut cache = Cache::new(1000);
        cache.put(key(0), facts(30, 10), start);
        let left = |cache: &mut Cache, millis| {
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
        let mut cache = Cache::new(1000);
        cache.put(key(0), facts(0, 10), start);
        let soon = start + Duration::from_millis(500);
        assert!(matches!(cache.get(&key(0), soon), Some((_, 0))));
        assert!(cache.get(&key(0), start + LEAST).is_none());
    }

    #[test]
    fn types_are_apart_and_newer_facts_replace_older() {
        let start = Instant::now();
        let mut cache = Cache::new(1000);
        cache.put(key(0), facts(5, 10), start);
        assert!(cache.get(&(key(0).0, RecordType::AAAA), start).is_none());
        cache.put(key(0), facts(7, 20), start);
        assert!(matches!(cache.get(&key(0), start), Some((_, 7))));
        assert_eq!(cache.weight, 20);
    }

    #[test]
    fn stays_within_its_weight_and_drops_the_least_used() {
        let start = Instant::now();
        let mut cache = Cache::new(100);
        for index in 0..10 {
            cache.put(key(index), facts(60, 10), start);
        }
        assert!(cache.get(&key(0), start).is_some());
        cache.put(key(10), facts(60, 10), start);
        assert!(cache.get(&key(0), start).is_some(), "was used lately");
        assert!(cache.get(&key(1), start).is_none(), "was not");
        cache.put(key(11), facts(60, 101), start);
        assert!(cache.get(&key(11), start).is_none(), "heavier than all");
        for index in 0..1000 {
            cache.put(key(index), facts(60, index % 60), start);
            assert!(cache.weight <= 100 && cache.entries.len() <= 100);
        }
    }
}
