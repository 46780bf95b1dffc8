//! The configuration that can change while guests are served.

use std::sync::Arc;
use std::time::Duration;

use odyn_link::FlowLimit;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::connected_guests::ConnectedGuests;
use crate::resolver::SystemResolver;
use crate::rules::{AddressLimits, ClientRules, Mapping};

/// The rules of the host. A flow is held to the rules at the time that it is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rules {
    /// The addresses that may be dialled.
    pub limits: AddressLimits,
    /// Longest wait for a connection to a destination.
    pub connect_timeout: Duration,
    /// How long flows may go on once a shutdown begins.
    pub drain_timeout: Duration,
    /// The resolver for the guests' DNS queries.
    pub resolver: Arc<SystemResolver>,
    /// The limits for clients.
    pub clients: ClientRules,
}

/// The numbers of guests, connections and flows at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Guests that are connected.
    pub guests: usize,
    /// Connections of all guests.
    pub connections: usize,
    /// Open flows of all guests.
    pub flows: usize,
}

/// The configuration of one [`Outer`](crate::Outer). Clones share it.
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

    /// The rules at this moment.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.shared.rules.read())
    }

    /// Replaces the rules for new flows. Open flows are not affected.
    pub fn set_rules(&self, rules: Rules) {
        *self.shared.rules.write() = Arc::new(rules);
    }

    /// Replaces the limit for the flows of all guests together. No open flow is ended.
    pub fn set_max_flows(&self, max_flows: usize) {
        self.shared.flows.set(max_flows);
    }

    /// Replaces the mappings. Mappings in both lists are not touched, and connected clients stay.
    pub fn set_mappings(&self, mappings: impl IntoIterator<Item = Mapping>) {
        let mappings = mappings.into_iter().collect();
        self.shared.mappings.send_replace(mappings);
    }

    pub(crate) fn mappings(&self) -> watch::Receiver<Arc<[Mapping]>> {
        self.shared.mappings.subscribe()
    }

    /// The numbers at this moment.
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
