//! Egress: captured flows are judged, and those that pass are carried over the link.

mod door;
mod gate;
mod judge;
pub mod sni;
mod tcp;
mod udp;

use std::io;
use std::sync::Arc;

use odyn_policy::{Policy, Reason};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use door::Door;
pub use gate::{LinkUpstream, PolicyGate, Resolver};
pub(crate) use tcp::finish;

use crate::audit::{Audit, Refusal};
use crate::capture::rejected::Rejected;
use crate::capture::routes::OwnAddresses;
use crate::capture::{Capture, icmp};
use judge::Judge;

/// Everything that a flow needs.
pub struct Egress {
    judge: Judge,
    door: Door,
    audit: Audit,
    refusals: icmp::Refusals,
    udp_flows: udp::Flows,
    flows: TaskTracker,
    /// No datagram comes any more than those that are there.
    last_datagrams: CancellationToken,
}

/// The running egress; it ends by [`Running::stop`].
pub struct Running {
    stop: CancellationToken,
    last_datagrams: CancellationToken,
    flows: TaskTracker,
    listeners: TaskTracker,
}

/// Starts serving a captured namespace.
pub fn start(
    capture: Capture,
    own: OwnAddresses,
    policy: Arc<Policy>,
    door: Door,
    audit: Audit,
) -> Running {
    let mut config = odyn_dns::Config::default();
    config.ttl = policy.settings().dns.ttl;
    let resolver = Resolver::new(
        config,
        PolicyGate::new(Arc::clone(&policy), audit.clone()),
        LinkUpstream::new(door.clone()),
    );
    let running = Running {
        stop: CancellationToken::new(),
        last_datagrams: CancellationToken::new(),
        flows: TaskTracker::new(),
        listeners: TaskTracker::new(),
    };
    let egress = Arc::new(Egress {
        judge: Judge::new(policy, resolver.clone(), own),
        door,
        audit: audit.clone(),
        refusals: capture.refusals,
        udp_flows: udp::Flows::default(),
        flows: running.flows.clone(),
        last_datagrams: running.last_datagrams.clone(),
    });
    for family in capture.families {
        let listeners = &running.listeners;
        let stop = || running.stop.clone();
        listeners.spawn(tcp::accept(family.tcp, Arc::clone(&egress), stop()));
        listeners.spawn(udp::listen(family.udp, Arc::clone(&egress), stop()));
        let udp = odyn_dns::serve_udp(family.dns_udp, resolver.clone());
        let tcp = odyn_dns::serve_tcp(family.dns_tcp, resolver.clone());
        listeners.spawn(serve_dns(udp, stop()));
        listeners.spawn(serve_dns(tcp, stop()));
    }
    if let Some(rejected) = capture.rejected {
        let record = record_rejected(rejected, audit);
        running
            .listeners
            .spawn(running.stop.clone().run_until_cancelled_owned(record));
    }
    running
}

impl Egress {
    fn spawn(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.flows.spawn(flow);
    }
}

impl Running {
    /// Takes what the kernel has already accepted for us, and nothing after that. Flows go on;
    /// those of UDP, which have no end of their own, end behind the last datagram.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.listeners.close();
        self.listeners.wait().await;
        self.last_datagrams.cancel();
    }

    /// Flows that are open at this moment.
    pub fn open_flows(&self) -> usize {
        self.flows.len()
    }
}

async fn serve_dns(server: impl Future<Output = io::Result<()>>, stop: CancellationToken) {
    if let Some(Err(error)) = stop.run_until_cancelled_owned(server).await {
        tracing::error!(%error, "a DNS server of the guest failed: names do not resolve over it");
    }
}

async fn record_rejected(mut rejected: Rejected, audit: Audit) {
    loop {
        match rejected.next().await {
            Ok(packets) => {
                for packet in packets {
                    audit
                        .flow(packet.protocol_name(), packet.destination_text())
                        .denied(Refusal::of(Reason::NotCapturable.as_str()));
                }
            }
            Err(error) => {
                tracing::error!(%error, "rejected packets are no longer recorded");
                return;
            }
        }
    }
}
