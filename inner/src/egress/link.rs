//! The only way from the guest to the link: it opens for a [`Permit`], which only the policy makes.

use std::time::Duration;

use bytes::Bytes;
use odyn_link::{
    Datagrams, Drain, DrainGuard, Drained, HostLink, LinkIo, LinkState, OpenError, OpenedFlow,
    Phase, Stream,
};
use odyn_policy::{KmsProxySettings, Permit};
use odyn_proto::{KmsEndpoint, Target, TargetHost};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The only holder of the guest's [`HostLink`].
#[derive(Clone)]
pub struct PermittedLink {
    link: HostLink,
}

impl PermittedLink {
    /// The permitted way over this link.
    pub fn new(link: HostLink) -> Self {
        Self { link }
    }

    /// Runs a TCP flow that will open here: see [`HostLink::carry`].
    pub fn carry(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.link.carry(flow);
    }

    /// Opens a TCP flow to where the permit says.
    ///
    /// # Errors
    /// What the host half or the link answered.
    pub async fn tcp(&self, permit: &Permit) -> Result<OpenedFlow<Stream>, OpenError> {
        self.link.connect_tcp(&target(permit)).await
    }

    /// As [`PermittedLink::tcp`], for an app that is already connected.
    ///
    /// The app's first bytes go with the request.
    ///
    /// # Errors
    /// As [`PermittedLink::tcp`]; what the app wrote is lost then.
    pub async fn tcp_for(
        &self,
        permit: &Permit,
        app: &TcpStream,
    ) -> Result<OpenedFlow<Stream>, OpenError> {
        self.link.connect_tcp_for(&target(permit), app).await
    }

    /// Opens a UDP flow to where the permit says.
    ///
    /// # Errors
    /// What the host half or the link answered.
    pub async fn udp(&self, permit: &Permit) -> Result<OpenedFlow<Datagrams>, OpenError> {
        self.link.connect_udp(&target(permit)).await
    }

    /// Carries one DNS message for the resolver, whose names the policy has allowed.
    ///
    /// # Errors
    /// What the host half or the link answered.
    pub async fn dns(&self, query: Bytes) -> Result<Bytes, OpenError> {
        self.link.dns(query).await
    }

    /// The way to KMS, which the policy's section opens.
    pub fn kms(&self, _allowed: &KmsProxySettings) -> KmsLink {
        KmsLink {
            link: self.link.clone(),
        }
    }

    /// The drain, for ingress to take part in.
    pub fn shared_drain(&self) -> Drain {
        self.link.shared_drain()
    }

    /// Delays the end of the drain while the caller is about to open a flow.
    pub fn busy(&self) -> DrainGuard {
        self.link.drain_guard()
    }

    /// Begins the drain: the app has ended, and no byte is written to its sockets any more.
    pub fn begin_drain(&self) {
        self.link.begin_drain();
    }

    /// As [`HostLink::drain`].
    pub async fn drain(&self, limit: Duration, force: impl Future<Output = ()>) -> Drained {
        self.link.drain(limit, force).await
    }

    /// As [`HostLink::close`].
    pub async fn close(&self, limit: Duration) {
        self.link.close(limit).await;
    }

    /// Waits for a phase of the end.
    pub async fn reached(&self, phase: Phase) {
        self.link.reached(phase).await;
    }

    /// Whether the link is up.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.link.state()
    }
}

/// The way to KMS and its credentials, and to nothing else. The host half looks the name up and
/// decides whether it is KMS; what goes there is TLS.
#[derive(Clone)]
pub struct KmsLink {
    link: HostLink,
}

impl KmsLink {
    /// Opens a TCP flow to an endpoint of KMS.
    ///
    /// # Errors
    /// What the host or the link answered.
    pub async fn connect(&self, endpoint: &KmsEndpoint) -> Result<LinkIo, OpenError> {
        self.link.connect_kms(endpoint).await
    }

    /// The credentials of the host's machine, as JSON.
    ///
    /// # Errors
    /// What the host half or the link answered.
    pub async fn credentials(&self) -> Result<Bytes, OpenError> {
        self.link.credentials().await
    }
}

fn target(permit: &Permit) -> Target {
    Target {
        host: match permit.target() {
            odyn_policy::PermitTarget::Addresses(addresses) => {
                TargetHost::Addresses(addresses.to_vec())
            }
            odyn_policy::PermitTarget::Host => TargetHost::HostLoopback,
        },
        port: permit.port(),
    }
}
