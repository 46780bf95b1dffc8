//! The host as a whole: accepts guests on its listeners and serves them until a shutdown.

mod acceptor;
mod builder;

use std::sync::Arc;
use std::time::{Duration, Instant};

use odyn_link::drain::{Phase, Trigger, Watch};
use odyn_link::{HostLanes, Listener, ServerConfig};
use tokio::sync::{Semaphore, watch};
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

    /// Serves the guests that come to `listeners` until the drain is over: `drain` is told to begin
    /// by the caller, who says how long it may take.
    ///
    /// The listeners are closed (and the files of Unix sockets removed) when it begins. It ends when
    /// every flow has ended. At the end of its time, or when the caller forces it, flows are cut;
    /// each is logged with its bytes. What flows have ended with is in the sockets when this
    /// returns: the kernel delivers it, whatever becomes of the process.
    pub async fn run(self, listeners: Vec<Listener>, drain: Trigger) -> Summary {
        let watch = drain.watch();
        let serving = Arc::new(self).serve_all(listeners, watch.clone());
        let out_of_time = async {
            watch.out_of_time().await;
            drain.advance(Phase::Forced, Instant::now(), Duration::ZERO);
            std::future::pending().await
        };
        tokio::select! {
            () = serving => {}
            never = out_of_time => never,
        }
        drain.advance(Phase::Done, Instant::now(), Duration::ZERO);
        Summary {
            cut: watch.cut().flows,
        }
    }

    async fn serve_all(self: Arc<Self>, listeners: Vec<Listener>, drain: Watch) {
        let outer = self;
        let ingress = HostIngress::new(
            outer.runtime_config.clone(),
            outer.listeners.clone(),
            outer.inherited.clone(),
            outer.server.tuning.clone(),
            outer.server.flows.clone(),
            Arc::clone(&outer.lanes),
            drain.clone(),
        );
        ingress.start();
        let links = TaskTracker::new();
        let accepting = TaskTracker::new();
        for listener in listeners {
            let run = LinkAcceptor {
                outer: Arc::clone(&outer),
                ingress: Arc::clone(&ingress),
                links: links.clone(),
                drain: drain.clone(),
            };
            accepting.spawn(run.accept(listener));
        }
        accepting.close();
        accepting.wait().await;
        links.close();
        links.wait().await;
        ingress.finish().await;
    }
}
