//! Bounds how often a request is sent again after the host went away.

use std::sync::atomic::{AtomicU64, Ordering};

/// Times that a request is sent again because the host went away before its answer.
const MAX_RESENDS: usize = 2;

/// Identifies the host process to which a connection leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// Counts the host processes that served this guest. All connections end with their host process,
/// and the guest notices one after the other. The first to end starts a new epoch for the
/// connections that are dialled from then on.
#[derive(Debug, Default)]
pub(crate) struct PeerEpochs(AtomicU64);

impl PeerEpochs {
    /// The epoch of a connection that is dialled now.
    pub(crate) fn now(&self) -> Epoch {
        Epoch(self.0.load(Ordering::Acquire))
    }

    /// Notes that a connection of this epoch has ended by itself.
    pub(crate) fn lost(&self, Epoch(of): Epoch) {
        self.0.fetch_max(of + 1, Ordering::AcqRel);
    }
}

/// The connections that one request has lost.
#[derive(Debug, Default)]
pub(crate) struct RequestLosses {
    count: usize,
    last: Option<Epoch>,
}

impl RequestLosses {
    /// Whether to send the request again after a connection of epoch `of` failed.
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
