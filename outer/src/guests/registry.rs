//! The table of guests that are and were connected. The constants bound it, whatever guests do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use odyn_link::Peer;
use odyn_proto::{GuestState, Identity, Refusal, RunId};

/// Most runs without an open feed. The oldest is forgotten when another joins them.
const MAX_QUIET: usize = 256;
/// Most runs of one peer.
const MAX_RUNS: usize = 16;
/// Most runs with an open feed, of all peers together.
const MAX_OPEN: usize = 1024;
/// Most names that one peer may use. After that it is called by its address.
const MAX_NAMES: usize = 16;
/// The feeds that a guest may open.
const FEEDS: [&str; 4] = ["stdout", "stderr", "log", "status"];

/// How far one feed of one run is written.
#[derive(Debug, Default)]
pub(super) struct FeedProgress {
    /// Locked while records are written.
    pub(super) turn: Arc<tokio::sync::Mutex<WriterState>>,
    /// Number of written records, for readers that do not take the lock.
    pub(super) written: AtomicU64,
    pub(super) ended: AtomicBool,
}

/// What the writer of a feed needs to know.
#[derive(Debug, Default)]
pub(super) struct WriterState {
    /// Number of the next record.
    pub(super) next: u64,
    /// Number of the newest opening of the feed. Older openings may not write.
    pub(super) opening: u64,
}

/// One run of a guest.
#[derive(Debug)]
pub(super) struct GuestRun {
    /// Its label on this host: its own name, made unique where another guest has it.
    pub(super) label: String,
    pub(super) name: String,
    pub(super) state: GuestState,
    pub(super) since: SystemTime,
    /// Number of open feeds.
    pub(super) open: usize,
    pub(super) feeds: BTreeMap<&'static str, Arc<FeedProgress>>,
    /// When the run was last used, by [`GuestRegistry::clock`].
    touched: u64,
}

/// Names a run. The peer is part of it: another peer that claims the same run is another guest.
pub(super) type RunKey = (Peer, RunId);

#[derive(Debug, Default)]
pub(super) struct GuestRegistry {
    pub(super) guests: HashMap<RunKey, GuestRun>,
    names: HashMap<Peer, HashSet<String>>,
    clock: u64,
}

impl GuestRegistry {
    /// Admits a feed that a guest opens: the run's key, the feed's progress and its static name.
    pub(super) fn admit(
        &mut self,
        guest: &Identity,
        feed: &str,
        peer: Peer,
    ) -> Result<(RunKey, Arc<FeedProgress>, &'static str), Refusal> {
        let feed = FEEDS
            .into_iter()
            .find(|name| *name == feed)
            .ok_or(Refusal::BadRequest)?;
        let key = (peer, guest.run);
        if !self.guests.contains_key(&key) {
            self.make_room(peer)?;
            let label = self.label(guest.name.as_str(), peer);
            self.guests.insert(
                key,
                GuestRun {
                    label,
                    name: guest.name.to_string(),
                    state: GuestState::Starting,
                    since: SystemTime::now(),
                    open: 0,
                    feeds: BTreeMap::new(),
                    touched: 0,
                },
            );
        }
        self.clock += 1;
        let clock = self.clock;
        let entry = self.guests.get_mut(&key).ok_or(Refusal::Internal)?;
        if entry.name != guest.name.as_str() {
            return Err(Refusal::BadRequest);
        }
        entry.open += 1;
        entry.touched = clock;
        let progress = Arc::clone(entry.feeds.entry(feed).or_default());
        Ok((key, progress, feed))
    }

    /// Counts a feed as closed.
    pub(super) fn leave(&mut self, key: RunKey) {
        self.clock += 1;
        if let Some(guest) = self.guests.get_mut(&key) {
            guest.open = guest.open.saturating_sub(1);
            guest.touched = self.clock;
        }
        while self.quiet().count() > MAX_QUIET {
            self.forget_oldest(|_| true);
        }
    }

    /// Makes room for one more run of `peer`, or refuses it.
    fn make_room(&mut self, peer: Peer) -> Result<(), Refusal> {
        let of_peer = |registry: &Self| registry.guests.keys().filter(|key| key.0 == peer).count();
        if of_peer(self) >= MAX_RUNS && !self.forget_oldest(|key| key.0 == peer) {
            return Err(Refusal::LimitReached);
        }
        let open = self.guests.len() - self.quiet().count();
        if open >= MAX_OPEN {
            return Err(Refusal::LimitReached);
        }
        Ok(())
    }

    fn quiet(&self) -> impl Iterator<Item = (&RunKey, &GuestRun)> {
        self.guests.iter().filter(|(_, guest)| guest.open == 0)
    }

    /// Forgets the run without open feeds that was used least recently, among those of `of`.
    fn forget_oldest(&mut self, of: impl Fn(&RunKey) -> bool) -> bool {
        let oldest = self
            .quiet()
            .filter(|(key, _)| of(key))
            .min_by_key(|(_, guest)| guest.touched)
            .map(|(key, _)| *key);
        let Some(key) = oldest else { return false };
        self.guests.remove(&key);
        if !self.guests.keys().any(|other| other.0 == key.0) {
            self.names.remove(&key.0);
        }
        true
    }

    /// The label of a guest: its name, unless another has it or its peer used too many names.
    fn label(&mut self, name: &str, peer: Peer) -> String {
        let taken = self.guests.iter().any(|((other, _), guest)| {
            let is_other = owner(*other) != owner(peer) || (guest.open > 0 && *other != peer);
            guest.name == name && is_other
        });
        let names = self.names.entry(peer).or_default();
        if names.len() >= MAX_NAMES && !names.contains(name) {
            return address(peer);
        }
        names.insert(name.to_owned());
        // A guest's own name has no `@`, so the label is no other guest's name.
        if taken {
            format!("{name}{}", address(peer))
        } else {
            name.to_owned()
        }
    }

    /// The written records of each feed, and whether the feed has ended.
    pub(super) fn positions(guest: &GuestRun) -> BTreeMap<&'static str, (u64, bool)> {
        let of = |progress: &FeedProgress| {
            let written = progress.written.load(Ordering::Acquire);
            (written, progress.ended.load(Ordering::Acquire))
        };
        guest
            .feeds
            .iter()
            .map(|(name, progress)| (*name, of(progress)))
            .collect()
    }
}

/// The owner of a peer: a machine, or a user of this machine.
fn owner(peer: Peer) -> (bool, u32) {
    match peer {
        Peer::Vsock { cid } => (true, cid),
        Peer::Unix { uid, .. } => (false, uid),
        // `Peer` may grow; unknown kinds count as one owner.
        _ => (false, u32::MAX),
    }
}

fn address(peer: Peer) -> String {
    match peer {
        Peer::Vsock { cid } => format!("@cid{cid}"),
        Peer::Unix { pid: Some(pid), .. } => format!("@pid{pid}"),
        Peer::Unix { uid, .. } => format!("@uid{uid}"),
        _ => "@other".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use odyn_proto::GuestName;

    use super::*;

    const VM: Peer = Peer::Vsock { cid: 16 };

    fn guest(name: &str, run: u32) -> Identity {
        let mut bits = [0; 16];
        bits[..4].copy_from_slice(&run.to_be_bytes());
        Identity {
            name: GuestName::nearest(name),
            run: RunId::new(bits),
        }
    }

    #[test]
    fn endless_runs_and_names_are_forgotten() {
        let mut registry = GuestRegistry::default();
        for run in 0..10_000 {
            let name = format!("name{run}");
            let peer = Peer::Vsock { cid: run % 100 };
            let (key, ..) = registry.admit(&guest(&name, run), "stdout", peer).unwrap();
            registry.leave(key);
        }
        assert_eq!(registry.guests.len(), MAX_QUIET);
        assert!(registry.names.len() <= 100);
        assert!(
            registry
                .names
                .values()
                .all(|names| names.len() <= MAX_NAMES)
        );
    }

    #[test]
    fn a_peer_cannot_hold_more_than_its_share() {
        let mut registry = GuestRegistry::default();
        for run in 0..MAX_RUNS as u32 {
            registry.admit(&guest("a", run), "log", VM).unwrap();
        }
        let more = registry.admit(&guest("a", 99), "log", VM);
        assert_eq!(more.unwrap_err(), Refusal::LimitReached);
        let other = Peer::Vsock { cid: 17 };
        registry.admit(&guest("b", 99), "log", other).unwrap();
    }

    #[test]
    fn a_name_that_another_guest_has_gets_a_suffix() {
        let mut registry = GuestRegistry::default();
        let mut label = |name: &str, run, peer| {
            let (key, ..) = registry.admit(&guest(name, run), "log", peer).unwrap();
            registry.leave(key);
            registry.guests[&key].label.clone()
        };
        assert_eq!(label("payments", 1, VM), "payments");
        assert_eq!(label("payments", 2, VM), "payments", "its next run");
        let thief = Peer::Vsock { cid: 66 };
        assert_eq!(label("payments", 1, thief), "payments@cid66");
        for run in 10..40 {
            let label = label(&format!("n{run}"), run, thief);
            assert!(run < 25 || label == "@cid66", "{run} {label}");
        }
    }

    #[test]
    fn only_known_feeds_and_one_name_for_a_run() {
        let mut registry = GuestRegistry::default();
        let mut admit = |name, feed| registry.admit(&guest(name, 1), feed, VM).map(|_| ());
        assert_eq!(admit("a", "stdout"), Ok(()));
        assert_eq!(admit("a", "other"), Err(Refusal::BadRequest));
        assert_eq!(admit("b", "stdout"), Err(Refusal::BadRequest));
    }
}
