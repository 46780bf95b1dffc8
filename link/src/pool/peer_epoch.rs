//! How often the host may go away under a request before the request fails.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often a request is sent again because the host went away before its answer.
///
/// The host may have acted on it: then a second connection is made to the destination, after one
/// that carried nothing, as programs that try several addresses at a time make them too. A request
/// with bytes of the program is not sent again ([`early`](crate::flow::early_data)); a DNS question may be
/// asked twice.
const MAX_RESENDS: usize = 2;

/// Which of the hosts that there were one after the other a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// Counts the hosts. All connections end with their host, and one is noticed after the other: the
/// first to end makes those that are dialled from then on another epoch.
#[derive(Debug, Default)]
pub(crate) struct PeerEpochs(AtomicU64);

impl PeerEpochs {
    /// What a connection that is dialled now belongs to.
    pub(crate) fn now(&self) -> Epoch {
        Epoch(self.0.load(Ordering::Acquire))
    }

    /// A connection of this epoch has ended by itself.
    pub(crate) fn lost(&self, Epoch(of): Epoch) {
        self.0.fetch_max(of + 1, Ordering::AcqRel);
    }
}

/// The losses of one request.
#[derive(Debug, Default)]
pub(crate) struct RequestLosses {
    count: usize,
    last: Option<Epoch>,
}

impl RequestLosses {
    /// Whether to send the request again after the end of a connection.
    pub(crate) fn again(&mut self, of: Epoch) -> bool {
        if self.last.is_none_or(|last| of > last) {
            self.count += 1;
            self.last = Some(of);
        }
        self.count <= MAX_RESENDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_end_together_are_one_loss() {
        let hosts = PeerEpochs::default();
        let mut losses = RequestLosses::default();
        let first = hosts.now();
        hosts.lost(first);
        // Another place has the next host already when the request hears of its own connection.
        let second = hosts.now();
        hosts.lost(first);
        assert_eq!(hosts.now(), second);
        for _ in 0..4 {
            assert!(losses.again(first));
        }
        hosts.lost(second);
        assert!(losses.again(second));
        assert!(losses.again(first));
        assert!(losses.again(second));
        assert!(!losses.again(hosts.now()));
    }
}
