//! Admits clients to one listener. Over a limit the newest client is refused.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::rules::ClientRules;

/// The burst under a rate limit: as many clients as the rate allows in this time.
const BURST: Duration = Duration::from_secs(1);

/// Counts the clients of one listener. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct Admission(Arc<Mutex<AdmissionState>>);

#[derive(Debug, Default)]
struct AdmissionState {
    open: usize,
    /// Clients by source. Has no more entries than there are clients.
    sources: HashMap<IpAddr, usize>,
    /// When the next client is due under the rate (the theoretical arrival time of GCRA).
    next: Option<Instant>,
    refused: u64,
}

/// Why a client was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum AdmissionError {
    #[error("too many clients of this listener")]
    TooManyConnections,
    #[error("too many clients of this address")]
    Source,
    #[error("too many clients in a short time")]
    Rate,
}

/// A client that was admitted; dropping it frees its place.
#[derive(Debug)]
pub(super) struct AdmittedClient {
    admission: Admission,
    source: Option<IpAddr>,
}

impl Admission {
    /// Admits a client, or counts it as refused.
    pub(super) fn arrive(
        &self,
        rules: &ClientRules,
        now: Instant,
    ) -> Result<AdmittedClient, AdmissionError> {
        let mut state = self.state();
        let admitted = if rules.most.is_some_and(|most| state.open >= most) {
            Err(AdmissionError::TooManyConnections)
        } else {
            state.keeps_rate(rules, now)
        };
        match admitted {
            Ok(()) => state.open += 1,
            Err(refused) => {
                state.refused += 1;
                return Err(refused);
            }
        }
        drop(state);
        Ok(AdmittedClient {
            admission: self.clone(),
            source: None,
        })
    }

    /// Counts a client that was refused for another reason.
    pub(super) fn refuse(&self) {
        self.state().refused += 1;
    }

    /// Connected clients, and clients that were refused since the start.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = self.state();
        (state.open, state.refused)
    }

    fn state(&self) -> MutexGuard<'_, AdmissionState> {
        self.0.lock()
    }
}

impl AdmissionState {
    fn keeps_rate(&mut self, rules: &ClientRules, now: Instant) -> Result<(), AdmissionError> {
        let Some(rate) = rules.rate else {
            return Ok(());
        };
        let interval = Duration::from_secs(1) / rate.get();
        let next = self.next.map_or(now, |next| next.max(now));
        if next.saturating_duration_since(now) + interval > BURST {
            return Err(AdmissionError::Rate);
        }
        self.next = Some(next + interval);
        Ok(())
    }
}

impl AdmittedClient {
    /// Checks the limit for the client's source, once that is known. To be called once.
    pub(super) fn came_from(
        &mut self,
        address: IpAddr,
        rules: &ClientRules,
    ) -> Result<(), AdmissionError> {
        let source = source(address);
        let mut state = self.admission.state();
        let open = state.sources.entry(source).or_default();
        if rules.most_per_source.is_some_and(|most| *open >= most) {
            if *open == 0 {
                state.sources.remove(&source);
            }
            state.refused += 1;
            return Err(AdmissionError::Source);
        }
        *open += 1;
        self.source = Some(source);
        Ok(())
    }
}

impl Drop for AdmittedClient {
    fn drop(&mut self) {
        let mut state = self.admission.state();
        state.open = state.open.saturating_sub(1);
        let Some(source) = self.source else {
            return;
        };
        if let Some(open) = state.sources.get_mut(&source) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                state.sources.remove(&source);
            }
        }
    }
}

/// The source that an address belongs to: an IPv4 address, or a /64 of IPv6.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let prefix = v6.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn rules(most: Option<usize>, per_source: Option<usize>, rate: u32) -> ClientRules {
        ClientRules {
            most,
            most_per_source: per_source,
            rate: NonZeroU32::new(rate),
            ..ClientRules::default()
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_newest_is_refused_and_room_comes_back() {
        let (admission, now) = (Admission::default(), Instant::now());
        let rules = rules(Some(2), None, 0);
        let one = admission.arrive(&rules, now).unwrap();
        let _two = admission.arrive(&rules, now).unwrap();
        assert_eq!(
            admission.arrive(&rules, now).unwrap_err(),
            AdmissionError::TooManyConnections
        );
        assert_eq!(admission.counts(), (2, 1));
        drop(one);
        let _three = admission.arrive(&rules, now).unwrap();
        assert_eq!(admission.counts(), (2, 1));
    }

    #[test]
    fn one_source_is_an_address_or_a_64() {
        let (admission, now) = (Admission::default(), Instant::now());
        let rules = rules(None, Some(1), 0);
        let come = |text: &str| {
            let mut admitted = admission.arrive(&rules, now).unwrap();
            admitted.came_from(address(text), &rules).map(|()| admitted)
        };
        let held = [
            come("192.0.2.1").unwrap(),
            come("192.0.2.2").unwrap(),
            come("2001:db8::1").unwrap(),
            come("2001:db8:0:1::1").unwrap(),
        ];
        for text in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::ffff:0:0:1"] {
            assert_eq!(come(text).unwrap_err(), AdmissionError::Source, "{text}");
        }
        assert_eq!(admission.counts(), (4, 3));
        drop(held);
        assert_eq!(admission.counts(), (0, 3));
        assert!(admission.state().sources.is_empty());
        come("192.0.2.1").unwrap();
        let none = super::tests::rules(None, Some(0), 0);
        let mut admitted = admission.arrive(&none, now).unwrap();
        assert!(admitted.came_from(address("192.0.2.9"), &none).is_err());
        drop(admitted);
        assert!(
            admission.state().sources.is_empty(),
            "nothing is left of it"
        );
    }

    #[test]
    fn a_second_has_so_many_and_no_more() {
        let (admission, start) = (Admission::default(), Instant::now());
        let rules = rules(None, None, 10);
        let come = |at: u64| {
            let now = start + Duration::from_millis(at);
            admission.arrive(&rules, now).map(drop)
        };
        for _ in 0..10 {
            come(0).unwrap();
        }
        assert_eq!(come(0), Err(AdmissionError::Rate));
        assert_eq!(come(99), Err(AdmissionError::Rate));
        come(100).unwrap();
        assert_eq!(come(100), Err(AdmissionError::Rate));
        for _ in 0..10 {
            come(5000).unwrap();
        }
        assert_eq!(
            come(5000),
            Err(AdmissionError::Rate),
            "a pause is not saved up"
        );
    }
}
