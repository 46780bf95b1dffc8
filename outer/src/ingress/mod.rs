//! Ingress: listens for the clients of the guests' programs.
//!
//! A guest says on a reversed connection which ports its policy wants; the operator's [`Mapping`]s
//! say which of them it gets, and where. Each mapping has a task that holds the listening socket
//! for as long as there is a guest for it (`listen`); each client has one that brings it to the
//! guest (`client`). Which guests there are stands in one table (`guests`).

mod client;
mod guests;
mod listen;
mod mapping;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use odyn_link::{
    ClientConfig, FlowLimit, Lanes, LinkError, Peer, Shutdown, Transport, Tuning, reverse::greet,
    wire::ingress::Hello,
};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::mapping::{Mapping, MappingError, Selector};
use self::{
    guests::{Guest, Guests},
    listen::Listening,
};

/// How long clients and their listening socket wait for a guest that was lost: long enough for it
/// to dial again, or for the next one to start in its place.
const LINGER: Duration = Duration::from_secs(5);

/// Longest wait for the guest to connect a client with its program: longer than the guest waits
/// for the program to listen.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What connections of the link get to say their last when there is no more time.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Ports that one line of the log names.
const PORTS_IN_LOG: usize = 16;

/// The host's half of ingress.
pub(crate) struct Ingress {
    mappings: Vec<Mapping>,
    config: ClientConfig,
    guests: Arc<Guests>,
    /// Flows of all guests, egress included.
    flows: Option<Arc<FlowLimit>>,
    tasks: TaskTracker,
    shutdown: Shutdown,
    cut: Arc<AtomicUsize>,
}

impl Ingress {
    /// Ingress by these mappings, until `shutdown`.
    pub(crate) fn new(
        mappings: Vec<Mapping>,
        tuning: Tuning,
        flows: Option<Arc<FlowLimit>>,
        lanes: Arc<Lanes>,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let mut config = ClientConfig::default();
        config.tuning = tuning;
        config.lanes = Some(lanes);
        config.open_wait = LINGER;
        config.open_timeout = OPEN_TIMEOUT;
        Arc::new(Self {
            mappings,
            config,
            guests: Arc::default(),
            flows,
            tasks: TaskTracker::new(),
            shutdown,
            cut: Arc::default(),
        })
    }

    /// Starts to listen wherever a guest wants it. Must be called in a tokio runtime.
    pub(crate) fn start(self: &Arc<Self>) {
        for mapping in &self.mappings {
            let listening = Listening::new(
                mapping.clone(),
                Arc::clone(&self.guests),
                self.flows.clone(),
                self.tasks.clone(),
                Arc::clone(&self.cut),
            );
            let run = listening.run();
            let shutdown = self.shutdown.drain.clone();
            self.tasks.spawn(shutdown.run_until_cancelled_owned(run));
        }
    }

    /// Waits for the end of every client after the shutdown; says how many were cut.
    pub(crate) async fn finish(&self) -> usize {
        self.tasks.close();
        self.tasks.wait().await;
        self.cut.load(Ordering::Relaxed)
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
        let greeted = greet(transport, &self.config).await?;
        let entered = self
            .guests
            .enter(greeted.hello(), peer, &self.config, &self.shutdown);
        let Ok((guest, is_new)) = entered else {
            return Err(LinkError::Protocol("too many connections for ingress"));
        };
        if is_new {
            self.log_arrival(&guest, greeted.hello());
            self.tasks.spawn(Arc::clone(self).end(Arc::clone(&guest)));
        }
        let leave = guest.client.adopt(greeted).await;
        self.guests.leave(&guest, &leave);
        Ok(())
    }

    fn log_arrival(&self, guest: &Guest, hello: &Hello) {
        info!(%guest, peer = %guest.peer, ports = hello.ports.len(), "guest wants clients");
        let denied: Vec<String> = hello
            .ports
            .iter()
            .filter(|port| !self.mappings.iter().any(|m| m.is_for(guest, **port)))
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
    async fn end(self: Arc<Self>, guest: Arc<Guest>) {
        tokio::select! {
            () = self.guests.gone(&guest, LINGER) => info!(%guest, "guest wants no more clients"),
            () = self.shutdown.drain.cancelled() => {}
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
