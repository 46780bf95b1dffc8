//! Which listener reaches which guest, for those who ask.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{admission::Admission, guests::Guest};

/// The listeners for clients. Clones are handles of the same.
#[derive(Debug, Clone, Default)]
pub struct Listeners(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<BTreeMap<String, Entry>>,
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct Entry {
    guest: Option<Arc<Guest>>,
    /// Why it does not listen, if it should.
    fault: Option<String>,
    is_open: bool,
    admission: Admission,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListenerView {
    /// The operator's mapping: `[GUEST:]PORT=ADDRESS:PORT`.
    pub mapping: String,
    /// Whether clients reach a guest by it.
    pub state: ListenerState,
    /// Why not, when it can't listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The guest that gets the clients.
    pub guest: Option<String>,
    /// Who that is: `cid 16`.
    pub peer: Option<String>,
    /// Clients that are there.
    pub clients: usize,
    /// Clients that were refused by a limit since the start.
    pub refused: u64,
}

/// How far a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ListenerState {
    /// Clients reach the guest.
    Ready,
    /// Clients wait for the guest to dial again.
    GuestLost,
    /// No guest wants these clients.
    NoGuest,
    /// The address can't be bound.
    Unavailable,
}

impl ListenerState {
    /// As in JSON.
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
    /// Told at each change, but not for each client.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// How they are now, in the order of their mappings.
    pub fn views(&self) -> Vec<ListenerView> {
        let entries = self.entries();
        entries
            .iter()
            .map(|(mapping, entry)| entry.view(mapping))
            .collect()
    }

    pub(super) fn update(
        &self,
        mapping: String,
        guest: Option<Arc<Guest>>,
        is_open: bool,
        fault: &str,
        admission: &Admission,
    ) {
        let entry = Entry {
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

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
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
