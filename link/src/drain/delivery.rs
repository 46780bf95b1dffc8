//! What the host has taken from a guest and not delivered yet.
//!
//! Each connection of the link has a [`DeliveryTable`]. A flow is in it from its opening until its peer
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

use crate::sockets::counters::Counters;
use crate::sockets::send_queue::SendQueue;
use crate::transport::lane_slot::LaneSlot;

/// How long a flow that has ended is kept when its peer does not take the last bytes. Then it is
/// the kernel's, which goes on for as long as it does for any process that is gone.
pub(crate) const LINGER: Duration = Duration::from_secs(120);

/// Flows of which it is remembered that they ended without delivering everything.
const MAX_GIVEN_UP: usize = 1024;

/// The flows of one connection.
#[derive(Debug, Default)]
pub(crate) struct DeliveryTable {
    flows: Mutex<HashMap<u32, Arc<FlowDelivery>>>,
    given_up: Mutex<Vec<Undelivered>>,
    /// Flushes that are being waited for.
    asked: AtomicUsize,
}

/// One flow, as others see it.
#[derive(Debug)]
pub(crate) struct FlowDelivery {
    stream: u32,
    dialled: SocketAddr,
    /// Written to the socket: `down` of the relay.
    counters: Arc<Counters>,
    /// A UDP flow has none: what it has sent is delivered.
    send_queue: Option<Arc<SendQueue>>,
    /// Bytes that came and are not written.
    queued: AtomicU64,
    fin_sent: AtomicBool,
    /// The socket failed, or the flow has left.
    over: AtomicBool,
    /// Where a lane that the guest has dialled is put.
    pub(crate) lane: LaneSlot,
}

/// A flow's place in its deliveries, left when dropped.
#[derive(Debug)]
pub(crate) struct FlowGuard {
    deliveries: Arc<DeliveryTable>,
    delivery: Arc<FlowDelivery>,
}

impl DeliveryTable {
    pub(crate) fn track(
        self: &Arc<Self>,
        stream: u32,
        dialled: SocketAddr,
        counters: Arc<Counters>,
        send_queue: Option<Arc<SendQueue>>,
    ) -> FlowGuard {
        let delivery = Arc::new(FlowDelivery {
            stream,
            dialled,
            counters,
            send_queue,
            queued: AtomicU64::new(0),
            fin_sent: AtomicBool::new(false),
            over: AtomicBool::new(false),
            lane: LaneSlot::default(),
        });
        self.flows().insert(stream, Arc::clone(&delivery));
        FlowGuard {
            deliveries: Arc::clone(self),
            delivery,
        }
    }

    /// The flow of a stream.
    pub(crate) fn delivery(&self, stream: u32) -> Option<Arc<FlowDelivery>> {
        self.flows().get(&stream).cloned()
    }

    /// Begins a flush: the flows that exist now.
    pub(crate) fn flush(&self) -> DeliveryCheck<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        DeliveryCheck {
            deliveries: self,
            waiting: self.flows().values().cloned().collect(),
        }
    }

    fn flows(&self) -> MutexGuard<'_, HashMap<u32, Arc<FlowDelivery>>> {
        // Nothing that could panic runs under the lock.
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<Undelivered>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The flows that a flush waits for.
pub(crate) struct DeliveryCheck<'a> {
    deliveries: &'a DeliveryTable,
    waiting: Vec<Arc<FlowDelivery>>,
}

impl DeliveryCheck<'_> {
    /// Looks at those that were not delivered at the last look. Whether none is left.
    pub(crate) fn look(&mut self) -> bool {
        self.waiting
            .retain(|delivery| delivery.undelivered().is_some());
        self.waiting.is_empty()
    }

    /// What is not delivered, and what was given up on this connection before.
    pub(crate) fn finish(mut self) -> Vec<Undelivered> {
        let still = self.waiting.drain(..);
        let mut list: Vec<_> = still
            .filter_map(|delivery| delivery.undelivered())
            .collect();
        list.extend(self.deliveries.given_up().iter());
        list
    }
}

impl Drop for DeliveryCheck<'_> {
    fn drop(&mut self) {
        self.deliveries.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FlowDelivery {
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
        let unacknowledged = match &self.send_queue {
            // A closed socket: its flow has ended, and has left a word if it gave up.
            Some(send_queue) => send_queue.unacknowledged()?,
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

impl FlowGuard {
    /// The flow, where its lane is put.
    pub(crate) fn delivery(&self) -> Arc<FlowDelivery> {
        Arc::clone(&self.delivery)
    }

    /// The state of the direction to the peer.
    pub(crate) fn note(&self, queued: u64, fin_sent: bool, failed: bool) {
        self.delivery.queued.store(queued, Ordering::Relaxed);
        if fin_sent {
            self.delivery.fin_sent.store(true, Ordering::Release);
        }
        if failed {
            self.delivery.over.store(true, Ordering::Release);
        }
    }

    /// Whether the guest waits for the answer to a flush.
    pub(crate) fn is_asked(&self) -> bool {
        self.deliveries.asked.load(Ordering::Relaxed) > 0
    }

    /// Bytes that the peer does not have.
    pub(crate) fn pending(&self) -> u64 {
        self.delivery.undelivered().map_or(0, |flow| flow.pending)
    }

    /// The flow ends now, whatever it has delivered.
    pub(crate) fn give_up(&self) {
        let Some(flow) = self.delivery.undelivered().filter(|flow| flow.pending > 0) else {
            return;
        };
        tracing::debug!(dialled = %flow.dialled, bytes = flow.pending, "gave up delivering");
        let mut given_up = self.deliveries.given_up();
        if given_up.len() < MAX_GIVEN_UP {
            given_up.push(flow);
        }
    }
}

impl Drop for FlowGuard {
    fn drop(&mut self) {
        self.delivery.over.store(true, Ordering::Release);
        self.deliveries.flows().remove(&self.delivery.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_undelivered_until_its_fin_is_sent_or_it_failed() {
        let deliveries = Arc::new(DeliveryTable::default());
        let dialled = "203.0.113.7:443".parse().unwrap();
        let track = |stream| deliveries.track(stream, dialled, Arc::default(), None);
        let (ends, fails, leaves, stays) = (track(1), track(3), track(5), track(7));
        let mut flush = deliveries.flush();
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
        let deliveries = Arc::new(DeliveryTable::default());
        let dialled = "203.0.113.7:443".parse().unwrap();
        let flow = deliveries.track(1, dialled, Arc::default(), None);
        flow.note(4, false, false);
        flow.give_up();
        drop(flow);
        let mut flush = deliveries.flush();
        assert!(flush.look());
        assert_eq!(flush.finish().len(), 1);
    }
}
