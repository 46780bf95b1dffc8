//! A view of the guests at one moment, for `enclaver-outer status`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use odyn_proto::GuestState;
use serde::{Deserialize, Serialize};

use super::Guests;
use super::registry::GuestRegistry;

/// One run of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GuestView {
    /// Its label on this host.
    pub name: String,
    /// Its peer address: `cid 16` or `pid 77 (uid 0)`.
    pub peer: String,
    /// Its run: 32 hex digits.
    pub run: String,
    /// The state that it reported last.
    #[serde(flatten)]
    pub state: GuestState,
    /// When it reported the state, by the host's clock.
    pub since: String,
    /// Whether its odyn-net is on the link.
    pub connected: bool,
    /// Its feeds.
    pub feeds: BTreeMap<String, FeedView>,
}

/// One feed of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FeedView {
    /// Number of written records.
    pub records: u64,
    /// Whether it has ended.
    pub ended: bool,
}

impl Guests {
    /// All guests that are remembered, by name and then by age.
    pub fn views(&self) -> Vec<GuestView> {
        let registry = self.registry();
        let mut guests: Vec<(SystemTime, GuestView)> = registry
            .guests
            .iter()
            .map(|((peer, run), guest)| {
                let feeds = GuestRegistry::positions(guest)
                    .into_iter()
                    .map(|(name, (records, ended))| (name.to_owned(), FeedView { records, ended }));
                let view = GuestView {
                    name: guest.label.clone(),
                    peer: peer.to_string(),
                    run: run.to_string(),
                    state: guest.state.clone(),
                    since: humantime::format_rfc3339_millis(guest.since).to_string(),
                    connected: guest.open > 0,
                    feeds: feeds.collect(),
                };
                (guest.since, view)
            })
            .collect();
        drop(registry);
        guests.sort_by(|(a_since, a), (b_since, b)| (&a.name, a_since).cmp(&(&b.name, b_since)));
        guests.into_iter().map(|(_, view)| view).collect()
    }
}
