//! What the host half has taken from a guest and not delivered yet.
//!
//! Each connection of the link has a [`Registry`]. A flow is in it from its opening until its peer
//! has everything: all bytes that came were written, the FIN was sent, and the peer's kernel has
//! acknowledged them (SIOCOUTQ), or the peer refused them. A flow that has ended in both
//! directions stays, with its socket open, until then, or for [`LINGER`].
//!
//! Whether it is so is asked only by `POST /flush`: a flow tells its state in two words of memory
//! and costs nothing else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use odyn_proto::wire::flush::Undelivered;

use crate::lane::Slot;
use crate::outq::Probe;
use crate::relay::Counters;

/// How long a flow that has ended is kept when its peer does not take the last bytes. Then it is
/// the kernel's, which goes on for as long as it does for any process that is gone.
pub(crate) const LINGER: Duration = Duration::from_secs(120);

/// Flows of which it is remembered that they ended without delivering everything.
const MAX_GIVEN_UP: usize = 1024;

/// The flows of one connection.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    flows: Mutex<HashMap<u32, Arc<Entry>>>,
    given_up: Mutex<Vec<Undelivered>>,
    /// Flushes that are being waited for.
    asked: AtomicUsize,
}

/// One flow, as others see it.
#[derive(Debug)]
pub(crate) struct Entry {
    stream: u32,
    dialled: SocketAddr,
    /// Written to the socket: `down` of the relay.
    counters: Arc<Counters>,
    /// A UDP flow has none: what it has sent is delivered.
    probe: Option<Arc<Probe>>,
    /// Bytes that came and are not written.
    queued: AtomicU64,
    fin_sent: AtomicBool,
    /// The socket failed, or the flow has left.
    over: AtomicBool,
    /// Where a lane that the guest has dialled is put.
    pub(crate) lane: Slot,
}

/// A flow's place in its registry, left when dropped.
#[derive(Debug)]
pub(crate) struct Tracked {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
}

impl Registry {
    pub(crate) fn track(
        self: &Arc<Self>,
        stream: u32,
        dialled: SocketAddr,
        counters: Arc<Counters>,
        probe: Option<Arc<Probe>>,
    ) -> Tracked {
        let entry = Arc::new(Entry {
            stream,
            dialled,
            counters,
            probe,
            queued: AtomicU64::new(0),
            fin_sent: AtomicBool::new(false),
            over: AtomicBool::new(false),
            lane: Slot::default(),
        });
        self.flows().insert(stream, Arc::clone(&entry));
        Tracked {
            registry: Arc::clone(self),
            entry,
        }
    }

    /// The flow of a stream.
    pub(crate) fn entry(&self, stream: u32) -> Option<Arc<Entry>> {
        self.flows().get(&stream).cloned()
    }

    /// Begins a flush: the flows that exist now.
    pub(crate) fn flush(&self) -> Flush<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Flush {
            registry: self,
            waiting: self.flows().values().cloned().collect(),
        }
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<u32, Arc<Entry>>> {
        // Nothing that could panic runs under the lock.
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<Undelivered>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The flows that a flush waits for.
pub(crate) struct Flush<'a> {
    registry: &'a Registry,
    waiting: Vec<Arc<Entry>>,
}

impl Flush<'_> {
    /// Looks at those that were not delivered at the last look. Whether none is left.
    pub(crate) fn look(&mut self) -> bool {
        self.waiting.retain(|entry| entry.undelivered().is_some());
        self.waiting.is_empty()
    }

    /// What is not delivered, and what was given up on this connection before.
    pub(crate) fn finish(mut self) -> Vec<Undelivered> {
        let still = self.waiting.drain(..);
        let mut list: Vec<_> = still.filter_map(|entry| entry.undelivered()).collect();
        list.extend(self.registry.given_up().iter());
        list
    }
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        self.registry.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Entry {
    /// The socket failed, or the flow has left.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// `None` when everything is delivered, or the peer does not want it.
    fn undelivered(&self) -> Option<Undelivered> {
        if self.is_over() {
            return None;
        }
        let fin_sent = self.fin_sent.load(Ordering::Acquire);
        let unacknowledged = match &self.probe {
            // A closed socket: its flow has ended, and has left a word if it gave up.
            Some(probe) => probe.unacknowledged()?,
            None => 0,
        };
        // The FIN is the last of what is not acknowledged.
        let in_socket = (unacknowledged as u64).saturating_sub(u64::from(fin_sent));
        if fin_sent && in_socket == 0 {
            return None;
        }
        let (_, written) = self.counters.get();
        Some(Undelivered {
            stream: self.stream,
            acknowledged: written.saturating_sub(in_socket),
            pending: self.queued.load(Ordering::Relaxed) + in_socket,
            dialled: self.dialled,
        })
    }
}

impl Tracked {
    /// The flow, for whoever has a lane for it.
    pub(crate) fn entry(&self) -> Arc<Entry> {
        Arc::clone(&self.entry)
    }

    /// The state of the direction to the peer.
    pub(crate) fn note(&self, queued: u64, fin_sent: bool, failed: bool) {
        self.entry.queued.store(queued, Ordering::Relaxed);
        if fin_sent {
            self.entry.fin_sent.store(true, Ordering::Release);
        }
        if failed {
            self.entry.over.store(true, Ordering::Release);
        }
    }

    /// Whether the guest waits for the answer to a flush.
    pub(crate) fn is_asked(&self) -> bool {
        self.registry.asked.load(Ordering::Relaxed) > 0
    }

    /// Bytes that the peer does not have.
    pub(crate) fn pending(&self) -> u64 {
        self.entry.undelivered().map_or(0, |flow| flow.pending)
    }

    /// The flow ends now, whatever it has delivered.
    pub(crate) fn give_up(&self) {
        let Some(flow) = self.entry.undelivered().filter(|flow| flow.pending > 0) else {
            return;
        };
        tracing::debug!(dialled = %flow.dialled, bytes = flow.pending, "gave up delivering");
        let mut given_up = self.registry.given_up();
        if given_up.len() < MAX_GIVEN_UP {
            given_up.push(flow);
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.entry.over.store(true, Ordering::Release);
        self.registry.flows().remove(&self.entry.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_undelivered_until_its_fin_is_sent_or_it_failed() {
        let registry = Arc::new(Registry::default());
        let dialled = "203.0.113.7:443".parse().unwrap();
        let track = |stream| registry.track(stream, dialled, Arc::default(), None);
        let (ends, fails, leaves, stays) = (track(1), track(3), track(5), track(7));
        let mut flush = registry.flush();
        assert!(!flush.look() && flush.waiting.len() == 4);
        ends.note(0, true, false);
        fails.note(0, false, true);
        stays.note(9, false, false);
        assert!(!flush.look() && flush.waiting.len() == 2);
        leaves.note(0, true, false);
        drop(leaves);
        assert!(!flush.look());
        let list = flush.finish();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].stream, list[0].pending), (7, 9));
    }

    #[test]
    fn what_was_given_up_is_told_later() {
        let registry = Arc::new(Registry::default());
        let dialled = "203.0.113.7:443".parse().unwrap();
        let flow = registry.track(1, dialled, Arc::default(), None);
        flow.note(4, false, false);
        flow.give_up();
        drop(flow);
        let mut flush = registry.flush();
        assert!(flush.look());
        assert_eq!(flush.finish().len(), 1);
    }
}
