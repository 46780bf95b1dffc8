//! The only way from the guest to the link: it opens for a [`Permit`], which only the policy makes.

use bytes::Bytes;
use odyn_link::drain::{Guard, Watch};
use odyn_link::{Datagrams, HostLink, LinkIo, LinkState, OpenError, OpenedFlow, Stream};
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
    /// Wraps the link.
    pub fn new(link: HostLink) -> Self {
        Self { link }
    }

    /// Runs a TCP flow that will open here: see [`HostLink::carry`].
    pub fn carry(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.link.carry(flow);
    }

    /// Opens a TCP flow to the destination of the permit.
    ///
    /// # Errors
    /// The host or the link refused the flow.
    pub async fn tcp(&self, permit: &Permit) -> Result<OpenedFlow<Stream>, OpenError> {
        self.link.connect_tcp(&target(permit)).await
    }

    /// Opens a TCP flow for an app that is already connected.
    ///
    /// The app's first bytes go with the request.
    ///
    /// # Errors
    /// See [`PermittedLink::tcp`]. The bytes that the app wrote are lost.
    pub async fn tcp_for(
        &self,
        permit: &Permit,
        app: &TcpStream,
    ) -> Result<OpenedFlow<Stream>, OpenError> {
        self.link.connect_tcp_for(&target(permit), app).await
    }

    /// Opens a UDP flow to the destination of the permit.
    ///
    /// # Errors
    /// The host or the link refused the flow.
    pub async fn udp(&self, permit: &Permit) -> Result<OpenedFlow<Datagrams>, OpenError> {
        self.link.connect_udp(&target(permit)).await
    }

    /// Carries one DNS query of the resolver, for a name that the policy allows.
    ///
    /// # Errors
    /// The host or the link gave no answer.
    pub async fn dns(&self, query: Bytes) -> Result<Bytes, OpenError> {
        self.link.dns(query).await
    }

    /// A link to KMS, for the policy's section `kms_proxy`.
    pub fn kms(&self, _allowed: &KmsProxySettings) -> KmsLink {
        KmsLink {
            link: self.link.clone(),
        }
    }

    /// Follows the drain of this guest.
    pub fn drain_watch(&self) -> Watch {
        self.link.drain_watch()
    }

    /// Delays the end of the drain while the caller is about to open a flow.
    pub fn handover(&self) -> Guard {
        self.link.handover()
    }

    /// Whether the link is up.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.link.state()
    }
}

/// A link to KMS and its credentials, and to nothing else. The host resolves the name and decides
/// whether it is KMS. The connection carries TLS.
#[derive(Clone)]
pub struct KmsLink {
    link: HostLink,
}

impl KmsLink {
    /// Opens a TCP flow to an endpoint of KMS.
    ///
    /// # Errors
    /// The host or the link refused the flow.
    pub async fn connect(&self, endpoint: &KmsEndpoint) -> Result<LinkIo, OpenError> {
        self.link.connect_kms(endpoint).await
    }

    /// The credentials of the host's machine, as JSON.
    ///
    /// # Errors
    /// The host or the link gave no answer.
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
