//! Random variation of the pauses between dials.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// Spreads the attempts of many guests that lost the same host.
pub(crate) struct Jitter {
    random: RandomState,
    count: u64,
}

impl Jitter {
    pub(crate) fn new() -> Self {
        Self {
            random: RandomState::new(),
            count: 0,
        }
    }

    /// Returns a time between half of `pause` and one and a half times `pause`.
    pub(crate) fn spread(&mut self, pause: Duration) -> Duration {
        self.count += 1;
        let thousandths = self.random.hash_one(self.count) % 1000;
        pause / 2 + pause * thousandths as u32 / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_its_range_and_moves() {
        let mut jitter = Jitter::new();
        let pause = Duration::from_secs(2);
        let spread: Vec<_> = (0..100).map(|_| jitter.spread(pause)).collect();
        assert!(
            spread
                .iter()
                .all(|p| (pause / 2..pause * 3 / 2).contains(p)),
            "{spread:?}"
        );
        assert!(spread.iter().any(|p| *p != spread[0]));
    }
}
