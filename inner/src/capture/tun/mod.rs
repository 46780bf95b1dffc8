//! Capture over a TUN device, for kernels without nf_tables.
//!
//! Every route leads into a device that odyn-net reads. TCP passes it twice: a packet to a
//! destination comes out, gets other addresses, and goes in again to a listener of odyn-net;
//! answers go the same way back. Both ends of a captured connection are thus sockets of the guest's
//! kernel, which does the work of TCP, and no TCP stack is needed here. odyn-net answers the first
//! packet of a connection only after the host has answered, so the app sees the true outcome of its
//! connect(). Datagrams are read and written as packets.
//!
//! [`packet`] parses, [`rewrite`] and [`build`] write, [`table`] knows the flows; none of them does
//! I/O. `engine` combines them.

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
const EXHAUSTED_INTERVAL: Duration = Duration::from_millis(50);

/// The reason why the namespace is not captured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// Other interfaces are up, and routes alone cannot capture their traffic.
    #[error(
        "the interfaces {} are up: by them an app could bypass a TUN device, so this capture \
         is for guests with nothing but lo (take them down, or use a kernel with nf_tables)",
        .0.join(", ")
    )]
    OtherInterfaces(Vec<String>),
    /// The interfaces cannot be listed.
    #[error("cannot list the interfaces: {0}")]
    Interfaces(#[source] io::Error),
    /// The device cannot be made.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An address or a route was refused.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// The listeners cannot be opened.
    #[error("cannot open the capture sockets on {NAME}: {0}")]
    Sockets(#[source] io::Error),
}

/// A captured namespace; nothing is served before `start`.
pub struct Tun {
    /// The part that answers datagrams.
    pub shared: Arc<Shared>,
    /// Listeners for allowed connections. [`accept`] serves them.
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
    /// The kernel lacks something or refused a step.
    pub async fn install(own: OwnAddresses) -> Result<Self, TunError> {
        let device = Device::create()?;
        let others = setup::other_interfaces().map_err(TunError::Interfaces)?;
        if !others.is_empty() {
            return Err(TunError::OtherInterfaces(others));
        }
        if let Err(error) = nft::remove() {
            tracing::debug!(%error, "found no rules of an earlier run");
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

/// Starts to move packets, until the worker is dropped.
///
/// # Errors
/// The kernel starts no thread.
pub fn start(shared: Arc<Shared>, handler: impl Handler) -> io::Result<Worker> {
    Worker::start(Engine::new(shared, handler), Handle::current())
}

/// Opens a listener that gets packets from the device only, not from the app over `lo`.
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
                    // The flow that waited for it has ended: dropping the connection closes it.
                    let _ = waiter.send(stream);
                }
            }
            Err(error) if sockets::is_exhaustion(&error) => {
                tracing::warn!(%error, "cannot accept a connection now; trying again");
                tokio::time::sleep(EXHAUSTED_INTERVAL).await;
            }
            // The connection ended before it was accepted.
            Err(error) => tracing::debug!(%error, "accept"),
        }
    }
}
