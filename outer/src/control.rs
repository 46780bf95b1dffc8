//! What an operator may change while guests are served.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use odyn_link::FlowLimit;
use tokio::sync::watch;

use crate::ingress::{ClientRules, Mapping};
use crate::limits::Limits;
use crate::presence::Presence;
use crate::resolver::SystemResolver;

/// The rules of the host. They hold for each flow as they are when it is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rules {
    /// The addresses that may be dialled.
    pub limits: Limits,
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
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: RwLock<Arc<Rules>>,
    flows: Arc<FlowLimit>,
    presence: Presence,
    mappings: watch::Sender<Arc<[Mapping]>>,
}

impl Control {
    pub(crate) fn new(rules: Rules, flows: Arc<FlowLimit>, mappings: Vec<Mapping>) -> Self {
        Self {
            shared: Arc::new(Shared {
                rules: RwLock::new(Arc::new(rules)),
                flows,
                presence: Presence::default(),
                mappings: watch::Sender::new(mappings.into()),
            }),
        }
    }

    /// The rules as they are.
    pub fn rules(&self) -> Arc<Rules> {
        let rules = self.shared.rules.read();
        Arc::clone(&rules.unwrap_or_else(PoisonError::into_inner))
    }

    /// Other rules, for the flows that are opened from now on. Those that are open go on.
    pub fn set_rules(&self, rules: Rules) {
        let held = self.shared.rules.write();
        *held.unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
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
        let (guests, connections) = self.shared.presence.count();
        Counts {
            guests,
            connections,
            flows: self.shared.flows.open(),
        }
    }

    pub(crate) fn presence(&self) -> &Presence {
        &self.shared.presence
    }
}
