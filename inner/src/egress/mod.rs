//! Egress: captured flows are judged, and those that pass are carried over the link.

mod authorize;
pub mod conditions;
mod dns_policy;
mod flow;
mod link;
mod tcp;
mod tun;
mod udp;

use std::io;
use std::sync::Arc;

use odyn_policy::{Policy, Reason};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::egress::dns_policy::{DnsPolicy, LinkUpstream, Resolver};
pub use crate::egress::link::{KmsLink, PermittedLink};
pub(crate) use tcp::finish;

use crate::audit::{Audit, Refusal};
use crate::capture::nflog::{RejectedPacket, RejectedPackets};
use crate::capture::routes::OwnAddresses;
use crate::capture::sockets::FamilySockets;
use crate::capture::udp_reply::UdpReplies;
use crate::capture::{Capture, Nftables};
use crate::egress::authorize::Authorizer;

/// The parts that all flows share.
pub struct Egress {
    authorizer: Authorizer,
    link: PermittedLink,
    audit: Audit,
    answers: UdpReplies,
    udp_flows: udp::Flows,
    flows: TaskTracker,
    /// Cancelled when no datagrams come after those in the sockets. UDP flows, which have no end of
    /// their own, end after their last datagram.
    stop: CancellationToken,
}

/// The running egress. [`RunningEgress::stop`] ends it.
pub struct RunningEgress {
    /// Cancelled when no flows come after those that the kernel has accepted.
    stop: CancellationToken,
    /// See [`Egress::stop`].
    stop_flows: CancellationToken,
    flows: TaskTracker,
    listeners: TaskTracker,
    /// The TUN capture, which moves packets until the last flow has ended.
    tun: Option<tun::Serving>,
}

/// Starts serving a captured namespace.
///
/// # Errors
/// The kernel has no thread left for the work.
pub fn start(
    capture: Capture,
    own: OwnAddresses,
    policy: Arc<Policy>,
    link: PermittedLink,
    audit: Audit,
) -> io::Result<RunningEgress> {
    let mut config = odyn_dns::Config::default();
    config.ttl = policy.settings().dns.ttl;
    let queries = config.udp_inflight;
    let resolver = Resolver::new(
        config,
        DnsPolicy::new(Arc::clone(&policy), audit.clone()),
        LinkUpstream::new(link.clone()),
    );
    let mut running = RunningEgress {
        stop: CancellationToken::new(),
        stop_flows: CancellationToken::new(),
        flows: TaskTracker::new(),
        listeners: TaskTracker::new(),
        tun: None,
    };
    let (flows, stop) = (running.flows.clone(), running.stop_flows.clone());
    let authorizer = Authorizer::new(policy, resolver.clone(), own);
    let egress = move |answers| {
        Arc::new(Egress {
            authorizer,
            link,
            audit,
            answers,
            udp_flows: udp::Flows::default(),
            flows,
            stop,
        })
    };
    match capture {
        Capture::Nftables(Nftables {
            families,
            refusals,
            rejected,
        }) => {
            let egress = egress(UdpReplies::Sockets(refusals));
            running.serve_nftables(families, rejected, &egress, &resolver);
        }
        Capture::Tun(captured) => {
            let egress = egress(UdpReplies::Packets(Arc::clone(&captured.shared)));
            let stop = running.stop.clone();
            running.tun = Some(tun::serve(captured, egress, resolver, queries, stop)?);
        }
    }
    Ok(running)
}

impl Egress {
    fn spawn(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.flows.spawn(flow);
    }

    /// Spawns the task of a TCP flow; see [`Egress::spawn`].
    fn carry(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.link.carry(self.flows.track_future(flow));
    }
}

impl RunningEgress {
    fn serve_nftables(
        &self,
        families: Vec<FamilySockets>,
        rejected: Option<RejectedPackets>,
        egress: &Arc<Egress>,
        resolver: &Resolver,
    ) {
        let listeners = &self.listeners;
        let stop = || self.stop.clone();
        for family in families {
            listeners.spawn(tcp::accept(family.tcp, Arc::clone(egress), stop()));
            listeners.spawn(udp::listen(family.udp, Arc::clone(egress), stop()));
            let udp = odyn_dns::serve_udp(family.dns_udp, resolver.clone());
            let tcp = odyn_dns::serve_tcp(family.dns_tcp, resolver.clone());
            listeners.spawn(serve_dns(udp, stop()));
            listeners.spawn(serve_dns(tcp, stop()));
        }
        if let Some(rejected) = rejected {
            let record = record_rejected(rejected, egress.audit.clone());
            listeners.spawn(stop().run_until_cancelled_owned(record));
        }
    }

    /// Stops new flows, after those that the kernel has already accepted. Open flows go on. UDP
    /// flows have no end of their own and end after their last datagram.
    pub async fn stop(&self) {
        if let Some(tun) = &self.tun {
            tun.settle().await;
        }
        self.stop.cancel();
        self.listeners.close();
        self.listeners.wait().await;
        self.stop_flows.cancel();
    }

    /// The number of open flows.
    pub fn open_flows(&self) -> usize {
        self.flows.len()
    }
}

async fn serve_dns(server: impl Future<Output = io::Result<()>>, stop: CancellationToken) {
    if let Some(Err(error)) = stop.run_until_cancelled_owned(server).await {
        tracing::error!(%error, "a DNS server of the guest failed: names do not resolve over it");
    }
}

async fn record_rejected(mut rejected: RejectedPackets, audit: Audit) {
    loop {
        match rejected.next().await {
            Ok(packets) => {
                for packet in packets {
                    record_packet(&audit, packet);
                }
            }
            Err(error) => {
                tracing::error!(%error, "rejected packets are no longer recorded");
                return;
            }
        }
    }
}

fn record_packet(audit: &Audit, packet: RejectedPacket) {
    audit
        .flow(packet.protocol_name(), packet.destination_text())
        .denied(Refusal::of(Reason::NotCapturable.as_str()));
}
