//! The setup of a host before it runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::{FlowLimit, HostLanes, LaneMode, ServerConfig, Tuning};
use tokio::sync::Semaphore;

use super::{MAX_LINKS, Outer};
use crate::guests::Guests;
use crate::handler::GuestRequestHandler;
use crate::ingress::{InheritedSockets, Listeners};
use crate::kms::Kms;
use crate::logs::{GuestLogs, LogDestination};
use crate::resolver::SystemResolver;
use crate::rules::{AddressLimits, ClientRules, Mapping};
use crate::runtime_config::{Rules, RuntimeConfig};

/// Default of the longest wait for a connection to a destination.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest drain, unless told otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Builds an [`Outer`].
#[derive(Debug)]
pub struct Builder {
    limits: AddressLimits,
    connect_timeout: Duration,
    max_flows: usize,
    server: ServerConfig,
    drain_timeout: Duration,
    only_pid: Option<i32>,
    ingress: Vec<Mapping>,
    clients: ClientRules,
    inherited: InheritedSockets,
    logs: GuestLogs,
    kms: Kms,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            limits: AddressLimits::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            max_flows: usize::MAX,
            server: ServerConfig::default(),
            drain_timeout: DRAIN_TIMEOUT,
            only_pid: None,
            ingress: Vec::new(),
            clients: ClientRules::default(),
            inherited: InheritedSockets::default(),
            logs: GuestLogs::None,
            kms: Kms::default(),
        }
    }

    /// The operator's limits on addresses.
    pub fn limits(mut self, limits: AddressLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Longest wait for a connection to a destination.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// Most flows at once, of all guests together.
    pub fn max_flows(mut self, flows: usize) -> Self {
        self.max_flows = flows;
        self
    }

    /// How long flows may go on once a shutdown begins.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.drain_timeout = limit;
        self
    }

    /// The tuning of the link.
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.server.tuning = tuning;
        self
    }

    /// Whether flows may get lanes when their guest asks for them.
    pub fn lanes(mut self, mode: LaneMode) -> Self {
        self.server.tuning.lanes = mode;
        self
    }

    /// Adds mappings: where to listen for clients, and for which guests.
    pub fn ingress(mut self, mappings: impl IntoIterator<Item = Mapping>) -> Self {
        self.ingress.extend(mappings);
        self
    }

    /// The limits for clients.
    pub fn clients(mut self, rules: ClientRules) -> Self {
        self.clients = rules;
        self
    }

    /// Listening sockets for mappings that name them or their address.
    pub fn inherited(mut self, sockets: InheritedSockets) -> Self {
        self.inherited = sockets;
        self
    }

    /// Serves only the process with this id, and only over a Unix socket.
    pub fn only_pid(mut self, pid: u32) -> Self {
        // No process has an id that does not fit: then no process is served.
        self.only_pid = Some(i32::try_from(pid).unwrap_or(-1));
        self
    }

    /// Where the logs of guests go. Default: nowhere.
    pub fn guest_logs(mut self, logs: GuestLogs) -> Self {
        self.logs = logs;
        self
    }

    /// What guests get of KMS. Default: nothing.
    pub fn kms(mut self, kms: Kms) -> Self {
        self.kms = kms;
        self
    }

    /// Builds the host, with the resolver for the guests' queries.
    ///
    /// # Errors
    /// The directory for the guests' logs can't be made, or the thread that writes them.
    pub fn build(self, resolver: SystemResolver) -> io::Result<Outer> {
        let Self {
            limits,
            connect_timeout,
            max_flows,
            mut server,
            drain_timeout,
            only_pid,
            ingress,
            clients,
            inherited,
            logs,
            kms,
        } = self;
        let guests = Guests::new(LogDestination::new(logs)?);
        let flows = Arc::new(FlowLimit::new(max_flows));
        server.flows = Some(Arc::clone(&flows));
        let lanes = HostLanes::new(&server.tuning);
        server.lanes = Some(Arc::clone(&lanes));
        let rules = Rules {
            limits,
            connect_timeout,
            drain_timeout,
            resolver: Arc::new(resolver),
            clients,
        };
        let runtime_config = RuntimeConfig::new(rules, flows, ingress);
        let listeners = Listeners::of(runtime_config.mappings());
        Ok(Outer {
            handler: Arc::new(GuestRequestHandler {
                runtime_config: runtime_config.clone(),
                guests,
                kms,
            }),
            runtime_config,
            server,
            only_pid,
            links: Arc::new(Semaphore::new(MAX_LINKS)),
            lanes,
            inherited,
            listeners,
        })
    }
}
