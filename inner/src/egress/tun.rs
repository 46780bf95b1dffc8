//! Egress of a namespace that a TUN device captures.
//!
//! Unlike with nftables, the decision and the host's answer come before the app's connect()
//! returns. So the result of connect() is the true one.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use odyn_dns::{QueryStep, QueryTransport};
use odyn_link::drain::Guard;
use odyn_policy::Protocol;
use odyn_proto::{Dialled, OrigDst};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Egress, tcp, udp};
use crate::audit::{End, Refusal};
use crate::capture::nflog::RejectedPacket;
use crate::capture::tun;
use crate::capture::tun::{Accepted, Handler, Held, Tun, Unreachable, Worker};
use crate::capture::udp_recv::UdpFlowKey;
use crate::egress::dns_policy::Resolver;
use crate::egress::flow;
use crate::egress::flow::{AllowedFlow, AppStream, Captured, RefusalCause};
use crate::egress::tcp::Connected;

/// Bytes of a DNS query. A longer one is cut, and answered as malformed.
const MAX_QUERY: usize = 4096;

/// The parts that serve the namespace as long as it exists.
pub(super) struct Serving {
    worker: Worker,
    _servers: JoinSet<()>,
    /// Delays the end of a drain until every packet of the app is with its flow.
    handover: Mutex<Option<Guard>>,
}

/// Serves a captured namespace. At most `queries` DNS queries over UDP wait for answers.
pub(super) fn serve(
    captured: Tun,
    egress: Arc<Egress>,
    resolver: Resolver,
    queries: usize,
    stop: CancellationToken,
) -> io::Result<Serving> {
    let mut servers = JoinSet::new();
    for listener in captured.tcp {
        servers.spawn(tun::accept(listener, Arc::clone(&captured.shared)));
    }
    for listener in captured.dns_tcp {
        let server = odyn_dns::serve_tcp(listener, resolver.clone());
        servers.spawn(super::serve_dns(server, stop.clone()));
    }
    for socket in captured.dns_udp {
        let server = odyn_dns::serve_udp(socket, resolver.clone());
        servers.spawn(super::serve_dns(server, stop.clone()));
    }
    let handover = egress.link.handover();
    let traffic = AppTraffic {
        egress,
        resolver,
        stop,
        shared: Arc::clone(&captured.shared),
        queries: Arc::new(Semaphore::new(queries.min(Semaphore::MAX_PERMITS))),
    };
    Ok(Serving {
        worker: tun::start(captured.shared, traffic)?,
        _servers: servers,
        handover: Mutex::new(Some(handover)),
    })
}

impl Serving {
    /// Waits until every packet that the app has sent is with its flow.
    pub(super) async fn settle(&self) {
        self.worker.settle().await;
        let handover = self
            .handover
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(handover);
    }
}

/// Handles the app's connections, datagrams and queries, as the device shows them.
struct AppTraffic {
    egress: Arc<Egress>,
    resolver: Resolver,
    stop: CancellationToken,
    shared: Arc<tun::Shared>,
    queries: Arc<Semaphore>,
}

impl Handler for AppTraffic {
    fn connection(&self, held: Held) {
        if self.stop.is_cancelled() {
            // Dropping `held` resets the connection, as a closed port does.
            return;
        }
        let handover = self.egress.link.handover();
        let egress = Arc::clone(&self.egress);
        self.egress
            .carry(async move { flow::run(held, &egress, handover).await });
    }

    fn overflow(&self, original: OrigDst) {
        self.egress
            .audit
            .flow("tcp", original)
            .denied(Refusal::of("flow-limit"));
    }

    fn datagram(&self, route: UdpFlowKey, data: &[u8]) {
        if self.stop.is_cancelled() {
            return;
        }
        udp::dispatch(&self.egress, route, data);
    }

    fn closed(&self, route: UdpFlowKey) {
        self.egress.udp_flows.close(route);
    }

    fn query(&self, route: UdpFlowKey, query: &[u8]) {
        let query = query.get(..MAX_QUERY).unwrap_or(query);
        match self
            .resolver
            .step(query, *route.client, QueryTransport::Udp)
        {
            QueryStep::Drop => {}
            QueryStep::Reply(reply) => self.shared.datagram(route, &reply),
            QueryStep::Wait(reply) => match Arc::clone(&self.queries).try_acquire_owned() {
                Ok(permit) => {
                    let shared = Arc::clone(&self.shared);
                    tokio::spawn(async move {
                        shared.datagram(route, &reply.answer().await);
                        drop(permit);
                    });
                }
                Err(_) => self.shared.datagram(route, &reply.give_up()),
            },
        }
    }

    fn rejected(&self, packet: RejectedPacket) {
        super::record_packet(&self.egress.audit, packet);
    }
}

impl Captured for Held {
    const PROTOCOL: Protocol = Protocol::Tcp;

    fn original(&self) -> OrigDst {
        Held::original(self)
    }

    fn refuse(
        self,
        cause: RefusalCause,
        handover: Guard,
    ) -> impl Future<Output = ()> + Send + 'static {
        Held::refuse(
            self,
            match cause {
                RefusalCause::Denied => tun::Refusal::Reset,
                RefusalCause::Unresolved => tun::Refusal::Unreachable(Unreachable::Host),
                RefusalCause::NotOpened(end) => refusal_of(end),
            },
        );
        async move { drop(handover) }
    }

    /// Completes the handshake before the host is asked: the app's bytes come after it.
    async fn into_stream(self) -> AppStream<Self> {
        let original = Held::original(&self);
        match self.accept().await {
            Some(accepted) => AppStream::Connected(Connected::held(accepted, original)),
            None => AppStream::Gone,
        }
    }

    async fn carry(self, allowed: AllowedFlow<'_>) {
        let AllowedFlow {
            admitted,
            mut record,
            egress,
            handover,
        } = allowed;
        let opened = match egress.link.tcp(&admitted.permit).await {
            Ok(opened) => opened,
            Err(error) => return flow::not_opened(self, &error, record, handover).await,
        };
        record.dialled(opened.dialled.map(Dialled));
        let Some(Accepted { stream, serving }) = self.accept().await else {
            return record.ended(End::ResetByApp);
        };
        // From here on the link knows the flow and delays the end of the drain itself.
        drop(handover);
        let end = odyn_link::relay(stream, opened.flow, record.counters()).await;
        drop(serving);
        tcp::finish(record, end);
    }
}

/// The answer to connect() for a connection that the host could not open.
fn refusal_of(end: End) -> tun::Refusal {
    match end {
        End::Refused | End::ResetByPeer => tun::Refusal::Reset,
        // No packet stands for ETIMEDOUT: the app's kernel reports it when no answer came.
        End::Timeout => tun::Refusal::Silence,
        End::Unreachable => tun::Refusal::Unreachable(Unreachable::Host),
        End::HostRefused => tun::Refusal::Unreachable(Unreachable::Prohibited),
        _ => tun::Refusal::Unreachable(Unreachable::Network),
    }
}
