//! The service: accepts guests on its listeners and serves each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::reverse::{Opening, opening};
use odyn_link::{
    FlowLimit, LaneMode, Lanes, LinkError, Listener, Peer, ServerConfig, Shutdown, Transport,
    Tuning, serve,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::control::{Control, Rules};
use crate::guests::{Guests, States};
use crate::handler::Dialler;
use crate::ingress::{ClientRules, Ingress, Inherited, Listeners, Mapping};
use crate::kms::Kms;
use crate::limits::Limits;
use crate::logs::{Destination, GuestLogs};
use crate::resolver::SystemResolver;

/// Longest wait for a connection to a destination, unless told otherwise.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of guests that are served at once. Each guest has a few.
const MAX_LINKS: usize = 1024;

/// Pause after `accept()` failed, which it does when there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How an [`Outer`] shall be.
#[derive(Debug)]
pub struct Builder {
    limits: Limits,
    connect_timeout: Duration,
    max_flows: usize,
    server: ServerConfig,
    only_pid: Option<i32>,
    ingress: Vec<Mapping>,
    clients: ClientRules,
    inherited: Inherited,
    logs: GuestLogs,
    kms: Kms,
}

/// What became of a run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Flows that were cut because the drain time was over.
    pub cut: usize,
}

/// The host half, ready to run.
pub struct Outer {
    handler: Arc<Dialler>,
    control: Control,
    server: ServerConfig,
    only_pid: Option<i32>,
    links: Arc<Semaphore>,
    lanes: Arc<Lanes>,
    inherited: Inherited,
    listeners: Listeners,
}

impl std::fmt::Debug for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outer")
            .field("only_pid", &self.only_pid)
            .finish_non_exhaustive()
    }
}

impl Outer {
    /// Starts from the defaults: no limits, 10 s to connect, 30 s to drain.
    pub fn builder() -> Builder {
        Builder {
            limits: Limits::default(),
            connect_timeout: CONNECT_TIMEOUT,
            max_flows: usize::MAX,
            server: ServerConfig::default(),
            only_pid: None,
            ingress: Vec::new(),
            clients: ClientRules::default(),
            inherited: Inherited::default(),
            logs: GuestLogs::None,
            kms: Kms::default(),
        }
    }

    /// Changes rules while it runs, and says who is here.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The guests, also while it runs.
    pub fn guests(&self) -> Guests {
        self.handler.guests.clone()
    }

    /// The listeners for clients, also while it runs.
    pub fn listeners(&self) -> Listeners {
        self.listeners.clone()
    }

    /// How many guests there are, in which state, and changes of it.
    pub fn states(&self) -> watch::Receiver<States> {
        self.handler.guests.states()
    }

    /// Serves the guests that come to `listeners` until `shutdown` is cancelled and every flow has
    /// ended, or was cut at the end of the drain time.
    ///
    /// The listeners are closed (and the files of Unix sockets removed) as soon as `shutdown` is
    /// cancelled. Each flow that is cut is logged with its bytes. What flows have ended with is
    /// in the sockets when this returns: the kernel delivers it, whatever becomes of the process.
    pub async fn run(self, listeners: Vec<Listener>, shutdown: impl Into<Shutdown>) -> Summary {
        let shutdown = shutdown.into();
        let mut outer = self;
        // One limit for all, as the rules have it when the shutdown begins.
        outer.server.drain_timeout = Duration::MAX;
        let outer = Arc::new(outer);
        let serving = Arc::clone(&outer).serve_all(listeners, shutdown.clone());
        let out_of_time = async {
            shutdown.drain.cancelled().await;
            sleep(outer.control.rules().drain_timeout).await;
            shutdown.force.cancel();
            std::future::pending().await
        };
        tokio::select! {
            summary = serving => summary,
            never = out_of_time => never,
        }
    }

    async fn serve_all(self: Arc<Self>, listeners: Vec<Listener>, shutdown: Shutdown) -> Summary {
        let outer = self;
        let ingress = Ingress::new(
            outer.control.clone(),
            outer.listeners.clone(),
            outer.inherited.clone(),
            outer.server.tuning.clone(),
            outer.server.flows.clone(),
            Arc::clone(&outer.lanes),
            shutdown.clone(),
        );
        ingress.start();
        let links = TaskTracker::new();
        let accepting = TaskTracker::new();
        let (cut_tx, mut cut_rx) = tokio::sync::mpsc::channel(MAX_LINKS);
        for listener in listeners {
            let run = Accepting {
                outer: Arc::clone(&outer),
                ingress: Arc::clone(&ingress),
                links: links.clone(),
                cut: cut_tx.clone(),
                shutdown: shutdown.clone(),
            };
            accepting.spawn(run.accept(listener));
        }
        drop(cut_tx);
        accepting.close();
        accepting.wait().await;
        links.close();
        let mut summary = Summary::default();
        while let Some(cut) = cut_rx.recv().await {
            summary.cut += cut;
        }
        links.wait().await;
        summary.cut += ingress.finish().await;
        summary
    }
}

impl Builder {
    /// The operator's rules.
    pub fn limits(mut self, limits: Limits) -> Self {
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

    /// How long flows may go on after the shutdown was asked for.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.server.drain_timeout = limit;
        self
    }

    /// The knobs of the link.
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.server.tuning = tuning;
        self
    }

    /// Whether flows may get connections of their own, when their guest wants it.
    pub fn lanes(mut self, mode: LaneMode) -> Self {
        self.server.tuning.lanes = mode;
        self
    }

    /// Where to listen for clients of the guests, and whose ports these are.
    pub fn ingress(mut self, mappings: impl IntoIterator<Item = Mapping>) -> Self {
        self.ingress.extend(mappings);
        self
    }

    /// The rules for clients.
    pub fn clients(mut self, rules: ClientRules) -> Self {
        self.clients = rules;
        self
    }

    /// Sockets that listen already, for mappings that name them or their address.
    pub fn inherited(mut self, sockets: Inherited) -> Self {
        self.inherited = sockets;
        self
    }

    /// Serves only the process with this id (and only over a Unix socket).
    pub fn only_pid(mut self, pid: u32) -> Self {
        // No process has an id that does not fit: nobody is served then.
        self.only_pid = Some(i32::try_from(pid).unwrap_or(-1));
        self
    }

    /// Where the logs of the guests go; nowhere unless told.
    pub fn guest_logs(mut self, logs: GuestLogs) -> Self {
        self.logs = logs;
        self
    }

    /// What guests may have of KMS: nothing, unless told.
    pub fn kms(mut self, kms: Kms) -> Self {
        self.kms = kms;
        self
    }

    /// Makes the service, with the resolver that it asks for its guests.
    ///
    /// # Errors
    /// When the directory for the guests' logs can't be made.
    pub fn build(self, resolver: SystemResolver) -> io::Result<Outer> {
        let Self {
            limits,
            connect_timeout,
            max_flows,
            mut server,
            only_pid,
            ingress,
            clients,
            inherited,
            logs,
            kms,
        } = self;
        let guests = Guests::new(Destination::new(logs)?);
        let flows = Arc::new(FlowLimit::new(max_flows));
        server.flows = Some(Arc::clone(&flows));
        let lanes = Lanes::new(&server.tuning);
        server.lanes = Some(Arc::clone(&lanes));
        let rules = Rules {
            limits,
            connect_timeout,
            drain_timeout: server.drain_timeout,
            resolver: Arc::new(resolver),
            clients,
        };
        let control = Control::new(rules, flows, ingress);
        let listeners = Listeners::of(control.mappings());
        Ok(Outer {
            handler: Arc::new(Dialler {
                control: control.clone(),
                guests,
                kms,
            }),
            control,
            server,
            only_pid,
            links: Arc::new(Semaphore::new(MAX_LINKS)),
            lanes,
            inherited,
            listeners,
        })
    }
}

/// What accepting on one listener takes.
struct Accepting {
    outer: Arc<Outer>,
    ingress: Arc<Ingress>,
    links: TaskTracker,
    cut: tokio::sync::mpsc::Sender<usize>,
    shutdown: Shutdown,
}

impl Accepting {
    async fn accept(self, listener: Listener) {
        let endpoint = listener.endpoint().to_string();
        info!(endpoint, "listening");
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.drain.cancelled() => break,
                accepted = listener.accept(&self.outer.server.tuning) => accepted,
            };
            match accepted {
                Ok((transport, peer)) => self.serve(transport, peer),
                Err(error) => self.pause(&endpoint, &error).await,
            }
        }
        info!(endpoint, "not listening any more");
    }

    async fn pause(&self, endpoint: &str, error: &io::Error) {
        warn!(endpoint, %error, "can't accept");
        tokio::select! {
            () = self.shutdown.drain.cancelled() => {}
            () = sleep(ACCEPT_PAUSE) => {}
        }
    }

    fn serve(&self, transport: Transport, peer: Peer) {
        if !is_wanted(&peer, self.outer.only_pid) {
            warn!(%peer, "not the process that may connect: turned away");
            return;
        }
        let Ok(permit) = Arc::clone(&self.outer.links).try_acquire_owned() else {
            warn!(%peer, max = MAX_LINKS, "too many connections: turned away");
            return;
        };
        let (outer, ingress) = (Arc::clone(&self.outer), Arc::clone(&self.ingress));
        let (shutdown, cut) = (self.shutdown.clone(), self.cut.clone());
        self.links.spawn(async move {
            let present = outer.control.presence().enter(peer);
            let handler = Arc::clone(&outer.handler);
            let server = outer.server.clone();
            let limit = server.tuning.handshake_timeout;
            let opened = opening(transport, limit).await;
            if let Ok(Opening::Lane(key, transport)) = opened {
                let served = outer.lanes.serve(transport, key, &server.tuning).await;
                return debug!(%peer, ?served, "lane");
            }
            info!(%peer, "guest connected");
            let served = match opened {
                Ok(Opening::Forward(transport)) => {
                    serve(transport, peer, handler, server, shutdown).await
                }
                Ok(Opening::Reversed(transport)) => ingress.serve(transport, peer).await,
                Ok(Opening::Lane(..)) => Ok(()),
                Err(error) => Err(error),
            };
            match served {
                Ok(()) => info!(%peer, "guest disconnected"),
                Err(error) => {
                    warn!(%peer, %error, "connection of a guest ended");
                    if let LinkError::DrainTimeout(flows) = error {
                        let _ = cut.send(flows).await;
                    }
                }
            }
            drop((present, permit));
        });
    }
}

fn is_wanted(peer: &Peer, only_pid: Option<i32>) -> bool {
    match (only_pid, peer) {
        (None, _) => true,
        (Some(wanted), Peer::Unix { pid, .. }) => *pid == Some(wanted),
        (Some(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_process_is_served() {
        let unix = |pid| Peer::Unix { pid, uid: 0 };
        assert!(is_wanted(&unix(None), None));
        assert!(is_wanted(&Peer::Vsock { cid: 3 }, None));
        assert!(is_wanted(&unix(Some(7)), Some(7)));
        assert!(!is_wanted(&unix(Some(8)), Some(7)));
        assert!(!is_wanted(&unix(None), Some(7)));
        assert!(!is_wanted(&Peer::Vsock { cid: 7 }, Some(7)));
    }
}
