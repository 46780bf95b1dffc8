//! The host as a whole: accepts guests on its listeners and serves them until a shutdown.

mod acceptor;
mod builder;

use std::sync::Arc;
use std::time::Duration;

use odyn_link::{HostLanes, Listener, ServerConfig, Shutdown};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use self::acceptor::LinkAcceptor;
use crate::guests::{Guests, States};
use crate::handler::GuestRequestHandler;
use crate::ingress::{HostIngress, InheritedSockets, Listeners};
use crate::runtime_config::RuntimeConfig;

pub use self::builder::Builder;

/// Most connections of guests at once. Each guest has a few.
const MAX_LINKS: usize = 1024;

/// How a run ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Flows that were cut at the end of the drain time.
    pub cut: usize,
}

/// A host, ready to run.
pub struct Outer {
    handler: Arc<GuestRequestHandler>,
    runtime_config: RuntimeConfig,
    server: ServerConfig,
    only_pid: Option<i32>,
    links: Arc<Semaphore>,
    lanes: Arc<HostLanes>,
    inherited: InheritedSockets,
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
        Builder::new()
    }

    /// The configuration that can change while the host runs.
    pub fn runtime_config(&self) -> RuntimeConfig {
        self.runtime_config.clone()
    }

    /// The guests, also while the host runs.
    pub fn guests(&self) -> Guests {
        self.handler.guests.clone()
    }

    /// The listeners for clients, also while the host runs.
    pub fn listeners(&self) -> Listeners {
        self.listeners.clone()
    }

    /// The numbers of guests in each state, and every change of them.
    pub fn states(&self) -> watch::Receiver<States> {
        self.handler.guests.states()
    }

    /// Serves guests until `shutdown` begins and every flow has ended or was cut.
    ///
    /// The listeners are closed (and the files of Unix sockets removed) as soon as `shutdown` is
    /// cancelled. Each flow that is cut at the end of the drain time is logged with its bytes. The
    /// last bytes of all other flows are in the kernel's sockets when this returns: the kernel
    /// delivers them, also after the end of this process.
    pub async fn run(self, listeners: Vec<Listener>, shutdown: impl Into<Shutdown>) -> Summary {
        let shutdown = shutdown.into();
        let mut outer = self;
        // One limit for all connections, taken from the rules when the shutdown begins.
        outer.server.drain_timeout = Duration::MAX;
        let outer = Arc::new(outer);
        let serving = Arc::clone(&outer).serve_all(listeners, shutdown.clone());
        let out_of_time = async {
            shutdown.drain.cancelled().await;
            sleep(outer.runtime_config.rules().drain_timeout).await;
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
        let ingress = HostIngress::new(
            outer.runtime_config.clone(),
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
        let (cut_tx, mut cut_rx) = mpsc::channel(MAX_LINKS);
        for listener in listeners {
            let run = LinkAcceptor {
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
