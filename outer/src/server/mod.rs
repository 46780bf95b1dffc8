//! The host as a whole: accepts guests on its listeners and serves each until it is told to stop.

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

/// Connections of guests that are served at once. Each guest has a few.
const MAX_LINKS: usize = 1024;

/// What became of a run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Flows that were cut because the drain time was over.
    pub cut: usize,
}

/// The host half, ready to run.
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

    /// Changes rules while it runs, and says who is here.
    pub fn runtime_config(&self) -> RuntimeConfig {
        self.runtime_config.clone()
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
