//! The state of each listener, for the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::admission::Admission;
use super::guests::IngressGuest;
use crate::rules::Mapping;

/// The listeners for clients. Clones share the same table.
#[derive(Debug, Clone)]
pub struct Listeners(Arc<ListenerTable>);

#[derive(Debug)]
struct ListenerTable {
    /// The operator's mappings.
    wanted: watch::Receiver<Arc<[Mapping]>>,
    /// The mappings that have a task. It starts after the mapping is set, and ends with a shutdown.
    entries: Mutex<BTreeMap<String, ListenerStatus>>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct ListenerStatus {
    guest: Option<Arc<IngressGuest>>,
    /// Why the socket can't be bound.
    fault: Option<String>,
    is_open: bool,
    admission: Admission,
}

/// One listener and its clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListenerView {
    /// The operator's mapping: `[GUEST:]PORT=ADDRESS:PORT`.
    pub mapping: String,
    /// Whether clients reach a guest.
    pub state: ListenerState,
    /// Why the address can't be bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The guest that gets the clients.
    pub guest: Option<String>,
    /// The peer address of the guest: `cid 16`.
    pub peer: Option<String>,
    /// Connected clients.
    pub clients: usize,
    /// Clients that were refused by a limit since the start.
    pub refused: u64,
}

/// Whether a listener reaches a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ListenerState {
    /// Clients reach the guest.
    Ready,
    /// Clients wait for the guest to dial again.
    GuestLost,
    /// No guest takes these clients.
    NoGuest,
    /// The address can't be bound.
    Unavailable,
}

impl ListenerState {
    /// The word in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::GuestLost => "guest-lost",
            Self::NoGuest => "no-guest",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Listeners {
    pub(crate) fn of(wanted: watch::Receiver<Arc<[Mapping]>>) -> Self {
        Self(Arc::new(ListenerTable {
            wanted,
            entries: Mutex::default(),
            changes: watch::Sender::default(),
        }))
    }

    /// Wakes at each change, but not for each client.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// The listeners now, in the order of their mappings. A mapping without a task has no guest.
    pub fn views(&self) -> Vec<ListenerView> {
        let wanted = self.0.wanted.borrow().clone();
        let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
        let entries = self.entries();
        wanted
            .iter()
            .map(|mapping| match entries.get(mapping) {
                Some(entry) => entry.view(mapping),
                None => ListenerStatus::default().view(mapping),
            })
            .collect()
    }

    pub(super) fn update(
        &self,
        mapping: String,
        guest: Option<Arc<IngressGuest>>,
        is_open: bool,
        fault: &str,
        admission: &Admission,
    ) {
        let entry = ListenerStatus {
            guest,
            fault: (!fault.is_empty()).then(|| fault.to_owned()),
            is_open,
            admission: admission.clone(),
        };
        self.entries().insert(mapping, entry);
        self.0.changes.send_replace(());
    }

    pub(super) fn remove(&self, mapping: &str) {
        self.entries().remove(mapping);
        self.0.changes.send_replace(());
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, ListenerStatus>> {
        self.0.entries.lock()
    }
}

impl ListenerStatus {
    fn view(&self, mapping: &str) -> ListenerView {
        let (clients, refused) = self.admission.counts();
        let state = match &self.guest {
            None => ListenerState::NoGuest,
            Some(_) if !self.is_open => ListenerState::Unavailable,
            Some(guest) if guest.is_here() => ListenerState::Ready,
            Some(_) => ListenerState::GuestLost,
        };
        ListenerView {
            mapping: mapping.to_owned(),
            state,
            reason: self.fault.clone(),
            guest: self.guest.as_ref().map(ToString::to_string),
            peer: self.guest.as_ref().map(|guest| guest.peer.to_string()),
            clients,
            refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_not_ready_before_its_task_has_begun_nor_after_its_end() {
        let mapping: Mapping = "80=192.0.2.2:8000".parse().unwrap();
        let name = mapping.to_string();
        let wanted = watch::Sender::new(Arc::<[Mapping]>::from([mapping]));
        let listeners = Listeners::of(wanted.subscribe());
        let states = || {
            let views = listeners.views().into_iter();
            views.map(|view| view.state).collect::<Vec<_>>()
        };
        assert_eq!(states(), [ListenerState::NoGuest]);
        listeners.update(name.clone(), None, false, "", &Admission::default());
        assert_eq!(states(), [ListenerState::NoGuest]);
        listeners.remove(&name);
        assert_eq!(states(), [ListenerState::NoGuest]);
        wanted.send_replace(Arc::default());
        assert_eq!(states(), []);
    }
}
