//! Ingress: listens for clients, and brings each to the app of a guest.
//!
//! A guest lists the ports of its policy on a reversed connection. The operator's [`Mapping`]s
//! decide which of them it gets, and at which address. Each mapping has a task that holds the
//! listening socket while there is a guest for it (`listener`); each client has a task that opens
//! its flow (`client`). One table holds all guests (`guests`).

mod admission;
mod client;
mod guests;
mod inherited_sockets;
mod listener;
mod proxy_header;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::drain::Watch;

use odyn_link::{
    FlowLimit, GuestLinkConfig, HostLanes, LinkError, Peer, Transport, Tuning, greet_guest,
};
use odyn_proto::wire::ingress::IngressHello;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::guests::IngressGuest;
use self::listener::{ListenerContext, MappingListener};

pub use self::inherited_sockets::InheritedSockets;
pub use self::status::{ListenerState, ListenerView, Listeners};
use crate::rules::{Bind, Mapping};
use crate::runtime_config::RuntimeConfig;

/// How long clients and their listening socket wait for a guest whose connections were lost.
///
/// Long enough for the guest to dial again, or for another to start in its place.
const GUEST_RETURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for the guest to connect a client with its app.
///
/// Longer than the guest waits for the app to listen, which a policy can set to five minutes.
const OPEN_TIMEOUT: Duration = Duration::from_secs(330);

/// How long connections of the link may still send resets after the flows were cut.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Most ports in one line of the log.
const MAX_PORTS_IN_LOG: usize = 16;

/// Ingress of one host: its listeners, its guests, and their clients.
pub(crate) struct HostIngress {
    common: ListenerContext,
    config: GuestLinkConfig,
    drain: Watch,
}

impl HostIngress {
    /// Makes ingress with the mappings and rules of `runtime_config`, until `shutdown`.
    pub(crate) fn new(
        runtime_config: RuntimeConfig,
        listeners: Listeners,
        inherited: InheritedSockets,
        tuning: Tuning,
        flows: Option<Arc<FlowLimit>>,
        lanes: Arc<HostLanes>,
        drain: Watch,
    ) -> Arc<Self> {
        let mut config = GuestLinkConfig::default();
        config.tuning = tuning;
        config.lanes = Some(lanes);
        config.open_wait = GUEST_RETURN_TIMEOUT;
        config.open_timeout = OPEN_TIMEOUT;
        Arc::new(Self {
            common: ListenerContext {
                runtime_config,
                guests: Arc::default(),
                flows,
                clients: TaskTracker::new(),
                listening: TaskTracker::new(),
                opening: TaskTracker::new(),
                listeners,
                inherited,
            },
            config,
            drain,
        })
    }

    /// Starts a task for each mapping, also for mappings that come later.
    ///
    /// Must be called in a tokio runtime.
    pub(crate) fn start(self: &Arc<Self>) {
        let listen = Arc::clone(self).listen();
        let draining = self.drain.draining();
        self.common.listening.spawn(async move {
            tokio::select! {
                () = draining => {}
                () = listen => {}
            }
        });
    }

    async fn listen(self: Arc<Self>) {
        let mut mappings = self.common.runtime_config.mappings();
        let mut running: HashMap<Mapping, DropGuard> = HashMap::new();
        loop {
            let wanted = mappings.borrow_and_update().clone();
            // Stop old mappings first: a new one may need the address.
            running.retain(|mapping, _| wanted.contains(mapping));
            for mapping in wanted.iter() {
                if !running.contains_key(mapping) {
                    running.insert(mapping.clone(), self.listen_by(mapping));
                }
            }
            self.warn_of_unused_sockets(&wanted);
            if mappings.changed().await.is_err() {
                return;
            }
        }
    }

    /// Listens until the guard is dropped. Connected clients stay.
    fn listen_by(&self, mapping: &Mapping) -> DropGuard {
        let run = MappingListener::new(mapping.clone(), self.common.clone()).run();
        let stop = CancellationToken::new();
        let task = stop.clone().run_until_cancelled_owned(run);
        self.common.listening.spawn(task);
        stop.drop_guard()
    }

    fn warn_of_unused_sockets(&self, mappings: &[Mapping]) {
        let unused = self.common.inherited.unused(|name, address| {
            mappings.iter().any(|mapping| match &mapping.bind {
                Bind::Address(wanted) => *wanted == address,
                Bind::Named(wanted) => wanted == name,
            })
        });
        if !unused.is_empty() {
            let sockets = unused.join(", ");
            warn!(
                sockets,
                "no --ingress uses these sockets of the service manager: their clients are never accepted"
            );
        }
    }

    /// Waits until all listeners are closed and every accepted client is with its guest.
    ///
    /// To be called in a shutdown.
    async fn opened(&self) {
        self.common.listening.close();
        self.common.listening.wait().await;
        self.common.opening.close();
        self.common.opening.wait().await;
    }

    /// Waits for the end of every client, in a drain.
    pub(crate) async fn finish(&self) {
        self.common.listening.close();
        self.common.listening.wait().await;
        self.common.clients.close();
        self.common.clients.wait().await;
    }

    /// Serves one reversed connection, until it takes no more clients.
    ///
    /// # Errors
    /// The guest sends no valid preamble, or there are too many guests or connections.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        transport: Transport,
        peer: Peer,
    ) -> Result<(), LinkError> {
        let greeted = greet_guest(transport, &self.config.tuning).await?;
        let entered = self
            .common
            .guests
            .enter(greeted.hello(), peer, &self.config, &self.drain);
        let Ok((guest, is_new)) = entered else {
            return Err(LinkError::TooManyConnections);
        };
        if is_new {
            self.log_arrival(&guest, greeted.hello());
            self.common
                .clients
                .spawn(Arc::clone(self).end(Arc::clone(&guest)));
        }
        let leave = guest.client.adopt(greeted).await;
        self.common.guests.leave(&guest, &leave);
        Ok(())
    }

    fn log_arrival(&self, guest: &IngressGuest, hello: &IngressHello) {
        info!(%guest, peer = %guest.peer, ports = hello.ports.len(), "guest requests ingress ports");
        let mappings = self.common.runtime_config.mappings();
        let mappings = mappings.borrow();
        let denied: Vec<String> = hello
            .ports
            .iter()
            .filter(|port| {
                !mappings
                    .iter()
                    .any(|m| m.is_for(&guest.identity.name, &guest.peer, **port))
            })
            .map(ToString::to_string)
            .collect();
        if let Some(some) = denied.chunks(MAX_PORTS_IN_LOG).next() {
            warn!(
                %guest,
                peer = %guest.peer,
                ports = some.join(", "),
                more = denied.len() - some.len(),
                "guest requests ingress ports that no --ingress maps: not listening"
            );
        }
    }

    /// Ends a guest that is gone: its clients stay connected until a drain cuts them.
    async fn end(self: Arc<Self>, guest: Arc<IngressGuest>) {
        tokio::select! {
            () = self.common.guests.gone(&guest, GUEST_RETURN_TIMEOUT) => info!(%guest, "guest takes no more clients"),
            () = self.drain.draining() => tokio::select! {
                () = self.opened() => {}
                () = self.drain.forced() => {}
            }
        }
        let out_of_time = async {
            self.drain.forced().await;
            sleep(CUT_TIMEOUT).await;
        };
        tokio::select! {
            _ = guest.client.close(Duration::MAX) => {}
            () = out_of_time => {
                guest.client.close(Duration::ZERO).await;
            }
        }
    }
}
