//! The host's link to one of its guests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use odyn_proto::wire::ingress::Incoming;
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::config::Tuning;
use crate::drain::delivery::DeliveryTable;
use crate::drain::{Trigger, Watch};
use crate::error::OpenError;
use crate::flow::client_socket::ClientSocket;
use crate::flow::lane::LaneAccess;
use crate::flow::stream::{FlowSide, Stream};
use crate::flow::tcp::HostSide;
use crate::host::config::GuestLinkConfig;
use crate::host::ingress::{GreetedGuest, ingress_request};
use crate::http2::open::LeaveReason;
use crate::pool::driver::drive;
use crate::pool::request::RequestBody;
use crate::pool::state::LinkState;
use crate::pool::{FlowClass, Pool, PoolConfig, PoolHandle};

/// A host's link to a guest, on which it opens flows. Its reversed connections are given to it.
/// Clones share the connections. When the last clone is dropped, no more flows can be opened, and
/// the open ones go on.
#[derive(Debug, Clone)]
pub struct GuestLink {
    pool: PoolHandle,
    tuning: Arc<Tuning>,
    /// The host's.
    drain: Watch,
}

impl GuestLink {
    /// Makes a link without connections. The name is for the log.
    ///
    /// Must be called in a tokio runtime.
    pub fn new(name: String, config: GuestLinkConfig, drain: Watch) -> Self {
        let tuning = Arc::new(config.tuning.clone());
        let config = PoolConfig {
            tuning: config.tuning,
            open_wait: config.open_wait,
            open_timeout: config.open_timeout,
            lanes: config.lanes,
        };
        Self {
            // Only a guest's pool takes part in a drain: the host ends this one by `close`.
            pool: Pool::adopting(name, config, Trigger::default().watch()),
            tuning,
            drain,
        }
    }

    /// Opens flows on this connection too, until it takes no more. Returns the reason.
    ///
    /// The connection is driven on until its flows have ended, even when the caller drops the
    /// future.
    pub fn adopt(&self, greeted: GreetedGuest) -> impl Future<Output = LeaveReason> + Send + use<> {
        let deliveries = Arc::<DeliveryTable>::default();
        for deferred in greeted.deferred {
            let (pool, deliveries) = (Arc::clone(&self.pool), Arc::clone(&deliveries));
            let force = self.drain.forced();
            self.pool.tasks.spawn(async move {
                let over = async {
                    pool.closing().await;
                    pool.flows.none().await;
                };
                deferred.answer_when_asked(&deliveries, over, force).await;
            });
        }
        let pool = Arc::clone(&self.pool);
        let opened = greeted.opened;
        let epoch = pool.peer_epochs.now();
        let driven = self
            .pool
            .tasks
            .spawn(async move { drive(&pool, opened, deliveries, epoch).await });
        async {
            let lost = |error: JoinError| LeaveReason::Lost(error.to_string());
            driven.await.unwrap_or_else(lost)
        }
    }

    /// Whether the guest can be reached, and changes of it.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.pool.state.subscribe()
    }

    /// Flows that are open or being opened.
    pub fn flows(&self) -> usize {
        self.pool.flows.count()
    }

    /// Runs a flow in the executor of a connection, from its beginning to its end. TCP flows that
    /// are opened and relayed there share the connection's polls and writes. The flow must not
    /// compute for long between two waits.
    ///
    /// Must be called in a tokio runtime.
    pub fn carry(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.pool.carry(FlowClass::Any, flow);
    }

    /// Opens a client's connection to the guest.
    ///
    /// # Errors
    /// When the guest refuses, the link is or goes down, or there is no answer in
    /// [`GuestLinkConfig::open_timeout`].
    pub async fn connect_ingress(
        &self,
        incoming: &Incoming,
        socket: &ClientSocket,
    ) -> Result<Stream, OpenError> {
        let request = ingress_request(incoming)?;
        let mut opened = self
            .pool
            .request(FlowClass::Any, &request, RequestBody::Client(socket))
            .await?;
        let side = opened.flow_guard.take().map(|flow_guard| HostSide {
            flow_guard,
            drain: self.drain.clone(),
        });
        let lane = side.as_ref().map(|side| side.flow_guard.delivery());
        let side = side.map(FlowSide::Host);
        let (send, recv, lease) = opened.into_parts();
        let tuning = Arc::clone(&self.tuning);
        let lane = lane.map_or(LaneAccess::None, LaneAccess::Host);
        Ok(Stream::new(send, recv, tuning, side, lane, Some(lease)))
    }

    /// Closes the connections: it opens no more flows, and waits up to `limit`. It waits until the
    /// open flows have ended and the guest has read everything. Returns how many flows it cut then.
    pub async fn close(&self, limit: Duration) -> usize {
        self.pool.close(limit).await
    }
}
