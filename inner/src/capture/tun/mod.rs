//! Capture over a TUN device, for kernels without nf_tables.
//!
//! Every route leads into a device whose other end is ours. TCP goes through it twice: what comes
//! out for a destination goes in again for a listener of ours, and the answers the same way back,
//! with the ends replaced. So both ends of a captured connection are sockets of the guest's kernel,
//! which does what TCP is about, and no TCP stack is needed here. Since the first packet of a
//! connection passes through our hands, it is answered when the host half has answered: the
//! program sees the true outcome of its connect(). Datagrams are read and written as packets.
//!
//! [`packet`] reads, [`rewrite`] and [`build`] write, [`table`] knows the flows; none of them does
//! I/O. `engine` puts them together.

pub mod build;
pub mod device;
mod engine;
mod held;
mod ioctl;
mod local_dns;
pub mod packet;
pub mod reassembly;
pub mod rewrite;
mod setup;
pub mod table;
mod thread;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::Type;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;

use super::routes::{OwnAddresses, RouteError};
use super::{nft, sockets};
use device::{Device, DeviceError, NAME};
use engine::{Engine, Ports};

pub use build::Unreachable;
pub use engine::{Handler, Shared};
pub use held::{Accepted, Held, Serving};
pub use table::Refusal;
pub use thread::Worker;

/// Pause after an accept that failed for lack of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Why the namespace is not captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// There are interfaces that capture by routes has no power over.
    #[error(
        "the interfaces {} are up: by them a program could go round a TUN device, so this capture \
         is for guests with nothing but lo (take them down, or use a kernel with nf_tables)",
        .0.join(", ")
    )]
    OtherInterfaces(Vec<String>),
    /// The list of interfaces.
    #[error("cannot list the interfaces: {0}")]
    Interfaces(#[source] io::Error),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Addresses and routes.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// The listeners.
    #[error("cannot open the capture sockets on {NAME}: {0}")]
    Sockets(#[source] io::Error),
}

/// A captured namespace; nothing is served before `start`.
pub struct Tun {
    /// For answers to datagrams.
    pub shared: Arc<Shared>,
    /// Listeners for connections that were decided on: to be given to [`accept`].
    pub tcp: Vec<TcpListener>,
    /// Listeners for DNS over TCP.
    pub dns_tcp: Vec<TcpListener>,
    /// DNS over UDP at local addresses.
    pub dns_udp: Vec<UdpSocket>,
}

impl Tun {
    /// Captures the network namespace of the calling process.
    ///
    /// # Errors
    /// What the kernel lacks or refused.
    pub async fn install(own: OwnAddresses) -> Result<Self, TunError> {
        let device = Device::create()?;
        let others = setup::other_interfaces().map_err(TunError::Interfaces)?;
        if !others.is_empty() {
            return Err(TunError::OtherInterfaces(others));
        }
        if let Err(error) = nft::remove() {
            tracing::debug!(%error, "no rules of an earlier run");
        }
        setup::install(own).await?;

        let (mut tcp, mut dns_tcp) = (Vec::new(), Vec::new());
        let mut open = |address: IpAddr| -> io::Result<Ports> {
            let (flows, dns) = (listen(address)?, listen(address)?);
            let ports = Ports {
                tcp: flows.local_addr()?.port(),
                dns: dns.local_addr()?.port(),
            };
            tcp.push(flows);
            dns_tcp.push(dns);
            Ok(ports)
        };
        let ports_v4 = open(own.v4.into()).map_err(TunError::Sockets)?;
        let ports_v6 = own
            .v6
            .map(|v6| open(v6.into()))
            .transpose()
            .map_err(TunError::Sockets)?;
        let (dns_udp, local_tcp): (Vec<_>, Vec<_>) = local_dns::open(own).into_iter().unzip();
        dns_tcp.extend(local_tcp);
        Ok(Self {
            shared: Arc::new(Shared::new(device, own, ports_v4, ports_v6)),
            tcp,
            dns_tcp,
            dns_udp,
        })
    }
}

/// Starts moving packets; it goes on until the worker is dropped.
///
/// # Errors
/// No thread can be started.
pub fn start(shared: Arc<Shared>, handler: impl Handler) -> io::Result<Worker> {
    Worker::start(Engine::new(shared, handler), Handle::current())
}

/// A listener that only packets from the device reach, not a program by way of `lo`.
fn listen(own: IpAddr) -> io::Result<TcpListener> {
    let socket = sockets::bind(own, Type::STREAM, |socket| {
        socket.bind_device(Some(NAME.as_bytes()))
    })?;
    TcpListener::from_std(socket.into())
}

/// Hands accepted connections to the flows that wait for them.
pub async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(waiter) = shared.accepted(peer) {
                    // Nobody waits any more: the connection is closed again.
                    let _ = waiter.send(stream);
                }
            }
            Err(error) if sockets::is_exhaustion(&error) => {
                tracing::warn!(%error, "no connection can be accepted at the moment");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The connection was gone before it was accepted.
            Err(error) => tracing::debug!(%error, "accept"),
        }
    }
}
