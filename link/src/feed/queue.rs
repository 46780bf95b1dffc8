//! The guest's end of a feed: a queue that keeps each record until the host has written it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use odyn_proto::wire::feed::{FeedRecord, MAX_RECORD};
use tokio::sync::Notify;

/// Cost of a record beside its payload, so that small records are bounded too.
const RECORD_COST: usize = 64;

/// The present time, for a new record.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// Records that a feed still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedBacklog {
    /// Records that the host has not acknowledged.
    pub records: usize,
    /// Bytes of these records.
    pub bytes: usize,
}

/// A feed of records. Clones are handles of the same feed.
#[derive(Debug, Clone)]
pub struct Feed {
    shared: Arc<FeedShared>,
}

#[derive(Debug)]
struct FeedShared {
    state: Mutex<FeedState>,
    /// Wakes the carrier: the feed has something to send.
    work: Notify,
    /// Wakes writers and waiters: the host has acknowledged a record, or the end.
    progress: Notify,
    limit: usize,
}

#[derive(Debug, Default)]
struct FeedState {
    records: VecDeque<FeedRecord>,
    /// Number of the first record that the feed holds.
    first: u64,
    cost: usize,
    bytes: usize,
    ended: bool,
    finished: bool,
}

/// What the carrier does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FeedWork {
    /// Send these bytes, which are so many records.
    Records(Bytes, u64),
    /// Send the end of the feed.
    End,
}

impl Feed {
    /// Makes a feed that holds about `limit` bytes; one record always fits.
    pub fn new(limit: usize) -> Self {
        Self {
            shared: Arc::new(FeedShared {
                state: Mutex::default(),
                work: Notify::new(),
                progress: Notify::new(),
                limit,
            }),
        }
    }

    /// Adds bytes that were made at `at`, when the feed has room. Bytes longer than a record become
    /// several records. Returns whether the feed took them; after [`Feed::end`] it takes none.
    pub fn try_write(&self, at: u64, bytes: &Bytes) -> bool {
        let cost = cost(bytes.len());
        let mut state = self.state();
        let is_full = !state.records.is_empty() && state.cost + cost > self.shared.limit;
        if state.ended || is_full {
            return false;
        }
        let mut rest = bytes.clone();
        loop {
            let part = rest.split_to(rest.len().min(MAX_RECORD));
            state.records.push_back(FeedRecord { at, bytes: part });
            if rest.is_empty() {
                break;
            }
        }
        state.cost += cost;
        state.bytes += bytes.len();
        drop(state);
        self.shared.work.notify_waiters();
        true
    }

    /// Adds bytes as [`Feed::try_write`] does, and waits for room. False after [`Feed::end`].
    pub async fn write(&self, at: u64, bytes: Bytes) -> bool {
        loop {
            let progress = self.shared.progress.notified();
            if self.try_write(at, &bytes) {
                return true;
            }
            if self.state().ended {
                return false;
            }
            progress.await;
        }
    }

    /// Ends the feed. The host still gets what the feed holds, and then the end.
    pub fn end(&self) {
        self.state().ended = true;
        self.shared.work.notify_waiters();
        self.shared.progress.notify_waiters();
    }

    /// Waits until the host has acknowledged everything that the feed holds now.
    pub async fn delivered(&self) {
        let end = self.end_number();
        loop {
            let progress = self.shared.progress.notified();
            if self.state().first >= end {
                return;
            }
            progress.await;
        }
    }

    /// Waits until the host has acknowledged every record and the end.
    pub async fn finished(&self) {
        loop {
            let progress = self.shared.progress.notified();
            if self.state().finished {
                return;
            }
            progress.await;
        }
    }

    /// Records that the host has not acknowledged yet.
    pub fn pending(&self) -> FeedBacklog {
        let state = self.state();
        FeedBacklog {
            records: state.records.len(),
            bytes: state.bytes,
        }
    }

    /// Number of the first record that the feed holds.
    pub(super) fn first(&self) -> u64 {
        self.state().first
    }

    /// One more than the number of the last record.
    pub(super) fn end_number(&self) -> u64 {
        let state = self.state();
        state.first + state.records.len() as u64
    }

    /// Waits for something to send from record `cursor` on. Returns as many records as fit into
    /// `most` bytes, at least one.
    pub(super) async fn work(&self, cursor: u64, most: usize) -> FeedWork {
        loop {
            let work = self.shared.work.notified();
            if let Some(found) = self.work_now(cursor, most) {
                return found;
            }
            work.await;
        }
    }

    fn work_now(&self, cursor: u64, most: usize) -> Option<FeedWork> {
        let state = self.state();
        let skip = usize::try_from(cursor.saturating_sub(state.first)).unwrap_or(usize::MAX);
        let mut out = BytesMut::new();
        let mut count = 0;
        for record in state.records.iter().skip(skip) {
            if count > 0 && out.len() + record.size() > most {
                break;
            }
            record.encode(&mut out);
            count += 1;
        }
        match count {
            0 if state.ended => Some(FeedWork::End),
            0 => None,
            _ => Some(FeedWork::Records(out.freeze(), count)),
        }
    }

    /// Notes that the host has written all records before `next`. `next` is no more than were sent.
    pub(super) fn acknowledge(&self, next: u64) {
        let mut state = self.state();
        while state.first < next {
            let Some(record) = state.records.pop_front() else {
                break;
            };
            state.first += 1;
            state.cost -= cost(record.bytes.len());
            state.bytes -= record.bytes.len();
        }
        drop(state);
        self.shared.progress.notify_waiters();
    }

    /// Notes that the host has every record, and the end.
    pub(super) fn finish(&self) {
        self.state().finished = true;
        self.shared.progress.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, FeedState> {
        // Nothing that could panic runs under the lock.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(bytes: usize) -> usize {
    bytes + RECORD_COST * bytes.div_ceil(MAX_RECORD).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_full_feed_takes_nothing_until_the_host_has_written() {
        let feed = Feed::new(3 * (RECORD_COST + 1));
        for _ in 0..3 {
            assert!(feed.try_write(1, &text("x")));
        }
        assert!(!feed.try_write(1, &text("x")));
        feed.acknowledge(2);
        assert_eq!(feed.first(), 2);
        assert!(feed.try_write(1, &text("x")) && feed.try_write(1, &text("x")));
        assert!(!feed.try_write(1, &text("x")));
        feed.acknowledge(5);
        assert_eq!(feed.state().cost, 0);
        let FeedBacklog { records, bytes } = feed.pending();
        assert_eq!((records, bytes), (0, 0));
    }

    #[test]
    fn what_is_too_long_for_a_record_becomes_several() {
        let feed = Feed::new(10);
        let long = Bytes::from(vec![7; 2 * MAX_RECORD + 1]);
        assert!(feed.try_write(1, &long), "one write always fits");
        assert_eq!(feed.pending().records, 3);
        feed.acknowledge(3);
        assert_eq!(feed.state().cost, 0);
    }

    #[tokio::test]
    async fn work_goes_on_from_the_cursor_and_then_comes_the_end() {
        let feed = Feed::new(1000);
        for part in ["a", "b", "c"] {
            assert!(feed.try_write(9, &text(part)));
        }
        let FeedWork::Records(bytes, 2) = feed.work(0, 26).await else {
            panic!("two records fit into 26 bytes");
        };
        assert_eq!(bytes.len(), 26);
        feed.acknowledge(1);
        feed.end();
        assert!(!feed.try_write(9, &text("d")), "it has ended");
        assert!(matches!(feed.work(2, 1).await, FeedWork::Records(_, 1)));
        assert_eq!(feed.work(3, 1).await, FeedWork::End);
    }
}
