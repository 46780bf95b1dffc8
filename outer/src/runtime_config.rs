//! What an operator may change while guests are served.

use std::sync::Arc;
use std::time::Duration;

use odyn_link::FlowLimit;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::connected_guests::ConnectedGuests;
use crate::resolver::SystemResolver;
use crate::rules::{AddressLimits, ClientRules, Mapping};

/// The rules of the host. They hold for each flow as they are when it is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rules {
    /// The addresses that may be dialled.
    pub limits: AddressLimits,
    /// Longest wait for a connection to a destination.
    pub connect_timeout: Duration,
    /// How long flows may go on after the shutdown was asked for, as it is then.
    pub drain_timeout: Duration,
    /// Who answers questions for names.
    pub resolver: Arc<SystemResolver>,
    /// The limits of clients.
    pub clients: ClientRules,
}

/// Who is here, and what they do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Machines or processes at the other end of the link.
    pub guests: usize,
    /// Their connections.
    pub connections: usize,
    /// Their flows.
    pub flows: usize,
}

/// A handle of an [`Outer`](crate::Outer) that runs, or will. Clones are handles of the same.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    shared: Arc<ConfigShared>,
}

#[derive(Debug)]
struct ConfigShared {
    rules: RwLock<Arc<Rules>>,
    flows: Arc<FlowLimit>,
    connected_guests: ConnectedGuests,
    mappings: watch::Sender<Arc<[Mapping]>>,
}

impl RuntimeConfig {
    pub(crate) fn new(rules: Rules, flows: Arc<FlowLimit>, mappings: Vec<Mapping>) -> Self {
        Self {
            shared: Arc::new(ConfigShared {
                rules: RwLock::new(Arc::new(rules)),
                flows,
                connected_guests: ConnectedGuests::default(),
                mappings: watch::Sender::new(mappings.into()),
            }),
        }
    }

    /// The rules as they are.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.shared.rules.read())
    }

    /// Other rules, for the flows that are opened from now on. Those that are open go on.
    pub fn set_rules(&self, rules: Rules) {
        *self.shared.rules.write() = Arc::new(rules);
    }

    /// Another limit for the flows of all guests together. None is ended by it.
    pub fn set_max_flows(&self, most: usize) {
        self.shared.flows.set(most);
    }

    /// Other mappings of ports to addresses. Those that stay go on as they are; clients that came by
    /// one that went go on.
    pub fn set_mappings(&self, mappings: impl IntoIterator<Item = Mapping>) {
        let mappings = mappings.into_iter().collect();
        self.shared.mappings.send_replace(mappings);
    }

    pub(crate) fn mappings(&self) -> watch::Receiver<Arc<[Mapping]>> {
        self.shared.mappings.subscribe()
    }

    /// Who is here now.
    pub fn counts(&self) -> Counts {
        let (guests, connections) = self.shared.connected_guests.count();
        Counts {
            guests,
            connections,
            flows: self.shared.flows.open(),
        }
    }

    pub(crate) fn connected_guests(&self) -> &ConnectedGuests {
        &self.shared.connected_guests
    }
}
