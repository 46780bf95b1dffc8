//! Ingress: listens for the clients of the guests' programs.
//!
//! A guest says on a reversed connection which ports its policy wants; the operator's [`Mapping`]s
//! say which of them it gets, and where. Each mapping has a task that holds the listening socket
//! for as long as there is a guest for it (`listen`); each client has one that brings it to the
//! guest (`client`). Which guests there are stands in one table (`guests`).

mod admission;
mod client;
mod guests;
mod inherited_sockets;
mod listener;
mod proxy_header;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use odyn_link::{
    FlowLimit, GuestLinkConfig, HostLanes, LinkError, Peer, Shutdown, Transport, Tuning,
    greet_guest,
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

/// How long clients and their listening socket wait for a guest that was lost: long enough for it
/// to dial again, or for the next one to start in its place.
const LINGER: Duration = Duration::from_secs(5);

/// Longest wait for the guest to connect a client with its program: longer than the guest waits
/// for the program to listen, which its policy may make five minutes.
const OPEN_TIMEOUT: Duration = Duration::from_secs(330);

/// What connections of the link get to say their last when there is no more time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Ports that one line of the log names.
const PORTS_IN_LOG: usize = 16;

/// The host's half of ingress.
pub(crate) struct HostIngress {
    common: ListenerContext,
    config: GuestLinkConfig,
    shutdown: Shutdown,
}

impl HostIngress {
    /// Ingress by the mappings and rules of `runtime_config`, until `shutdown`.
    pub(crate) fn new(
        runtime_config: RuntimeConfig,
        listeners: Listeners,
        inherited: InheritedSockets,
        tuning: Tuning,
        flows: Option<Arc<FlowLimit>>,
        lanes: Arc<HostLanes>,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let mut config = GuestLinkConfig::default();
        config.tuning = tuning;
        config.lanes = Some(lanes);
        config.open_wait = LINGER;
        config.open_timeout = OPEN_TIMEOUT;
        Arc::new(Self {
            common: ListenerContext {
                runtime_config,
                guests: Arc::default(),
                flows,
                clients: TaskTracker::new(),
                listening: TaskTracker::new(),
                opening: TaskTracker::new(),
                cut: Arc::default(),
                listeners,
                inherited,
            },
            config,
            shutdown,
        })
    }

    /// Starts to listen wherever a guest wants it, by the mappings as they are at any time. Must be
    /// called in a tokio runtime.
    pub(crate) fn start(self: &Arc<Self>) {
        let listen = Arc::clone(self).listen();
        let shutdown = self.shutdown.drain.clone();
        let listening = &self.common.listening;
        listening.spawn(shutdown.run_until_cancelled_owned(listen));
    }

    async fn listen(self: Arc<Self>) {
        let mut mappings = self.common.runtime_config.mappings();
        let mut running: HashMap<Mapping, DropGuard> = HashMap::new();
        loop {
            let wanted = mappings.borrow_and_update().clone();
            // First: another mapping may want the address.
            running.retain(|mapping, _| wanted.contains(mapping));
            for mapping in wanted.iter() {
                if !running.contains_key(mapping) {
                    running.insert(mapping.clone(), self.listen_by(mapping));
                }
            }
            self.say_unused(&wanted);
            if mappings.changed().await.is_err() {
                return;
            }
        }
    }

    /// Listens until the guard is dropped. Clients that are there go on.
    fn listen_by(&self, mapping: &Mapping) -> DropGuard {
        let run = MappingListener::new(mapping.clone(), self.common.clone()).run();
        let stop = CancellationToken::new();
        let task = stop.clone().run_until_cancelled_owned(run);
        self.common.listening.spawn(task);
        stop.drop_guard()
    }

    fn say_unused(&self, mappings: &[Mapping]) {
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
                "no --ingress uses these sockets of the service manager: their clients wait in vain"
            );
        }
    }

    /// Waits until nobody listens any more, and every client that had come is with its guest. To
    /// be called in a shutdown.
    async fn opened(&self) {
        self.common.listening.close();
        self.common.listening.wait().await;
        self.common.opening.close();
        self.common.opening.wait().await;
    }

    /// Waits for the end of every client after the shutdown; says how many were cut.
    pub(crate) async fn finish(&self) -> usize {
        self.common.listening.close();
        self.common.listening.wait().await;
        self.common.clients.close();
        self.common.clients.wait().await;
        self.common.cut.load(Ordering::Relaxed)
    }

    /// Serves one reversed connection, until it takes no more clients.
    ///
    /// # Errors
    /// When the guest does not say who it is, or there are too many.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        transport: Transport,
        peer: Peer,
    ) -> Result<(), LinkError> {
        let greeted = greet_guest(transport, &self.config.tuning).await?;
        let entered = self
            .common
            .guests
            .enter(greeted.hello(), peer, &self.config, &self.shutdown);
        let Ok((guest, is_new)) = entered else {
            return Err(LinkError::Protocol("too many connections for ingress"));
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
        info!(%guest, peer = %guest.peer, ports = hello.ports.len(), "guest wants clients");
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
        if let Some(some) = denied.chunks(PORTS_IN_LOG).next() {
            warn!(
                %guest,
                peer = %guest.peer,
                ports = some.join(", "),
                more = denied.len() - some.len(),
                "guest wants clients on ports that no --ingress gives it: not listening"
            );
        }
    }

    /// The end of one guest: what is open goes on. A shutdown cuts it when its time is over.
    async fn end(self: Arc<Self>, guest: Arc<IngressGuest>) {
        tokio::select! {
            () = self.common.guests.gone(&guest, LINGER) => info!(%guest, "guest wants no more clients"),
            () = self.shutdown.drain.cancelled() => tokio::select! {
                () = self.opened() => {}
                () = self.shutdown.force.cancelled() => {}
            }
        }
        let out_of_time = async {
            self.shutdown.force.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            _ = guest.client.close(Duration::MAX) => {}
            () = out_of_time => {
                guest.client.close(Duration::ZERO).await;
            }
        }
    }
}
