//! How often the host may go away under a request before the request fails.

use std::time::Instant;

/// How often a request is sent again because the host went away before its answer.
///
/// The host may have acted on it: then a second connection is made to the destination, after one
/// that carried nothing, as programs that try several addresses at a time make them too. A request
/// with bytes of the program is not sent again ([`early`](crate::early)); a DNS question may be
/// asked twice.
const ATTEMPTS: usize = 2;

/// The losses of one request.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    count: usize,
    last: Option<Instant>,
}

impl Losses {
    /// Whether to send the request again after the end of a connection that was opened at `born`.
    pub(crate) fn again(&mut self, born: Instant, now: Instant) -> bool {
        // All connections end with the host, and one is noticed after the other.
        let is_same = self.last.is_some_and(|last| born <= last);
        if !is_same {
            self.count += 1;
        }
        self.last = Some(now);
        self.count <= ATTEMPTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn connections_that_end_together_are_one_loss() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut losses = Losses::default();
        for place in 0..4 {
            assert!(losses.again(at(place), at(10 + place)));
        }
        assert!(losses.again(at(20), at(21)));
        assert!(losses.again(at(19), at(22)));
        assert!(!losses.again(at(30), at(31)));
    }
}
