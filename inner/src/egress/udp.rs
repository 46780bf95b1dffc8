//! UDP: datagrams of one client socket to one destination are a flow.
//!
//! The first datagram arrives at the tproxy listener. The flow then opens a socket that is bound
//! to the original destination and connected to the client; from there on the kernel delivers
//! the client's datagrams to it directly, and answers go out of it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use odyn_link::{Counters, DatagramError, Datagrams};
use odyn_policy::{Protocol, Reason};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Egress;
use super::judge::{Stopped, end_of_open};
use crate::audit::{End, Record, Refusal};
use crate::capture::datagrams::{MAX_DATAGRAM, Route, receive};
use crate::capture::sockets::reply_socket;

/// A flow without datagrams for this long is over. RFC 4787 (REQ-5) asks for two minutes or more.
const IDLE: Duration = Duration::from_secs(150);
/// How long a denied client and destination are remembered as one flow.
const DENIED_IDLE: Duration = Duration::from_secs(30);
/// Datagrams that may wait while a flow is being opened; further ones are lost, as UDP allows.
const OPENING_QUEUE: usize = 64;
/// Flows at one time; each holds a descriptor here and in the host half.
const MAX_FLOWS: usize = 16_384;

/// The flows that exist, shared by the listeners of both families.
#[derive(Default)]
pub(super) struct Flows {
    queues: Mutex<HashMap<Route, mpsc::Sender<Bytes>>>,
}

/// Receives captured datagrams until `stop`.
pub(super) async fn listen(socket: UdpSocket, egress: Arc<Egress>, stop: CancellationToken) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            biased;
            received = receive(&socket, &mut buffer) => received,
            () = stop.cancelled() => return,
        };
        match received {
            Ok((length, route)) => {
                let datagram = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                dispatch(&egress, route, datagram, &stop);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                egress
                    .audit
                    .flow("udp", "unknown")
                    .denied(Refusal::of("no-destination"));
            }
            // An error that the kernel queued on the socket for some earlier datagram.
            Err(error) => tracing::debug!(%error, "receive"),
        }
    }
}

fn dispatch(egress: &Arc<Egress>, route: Route, datagram: Bytes, stop: &CancellationToken) {
    let length = datagram.len();
    let mut queues = egress.udp_flows.lock();
    if let Some(queue) = queues.get(&route) {
        // A full queue loses the datagram, as a full socket buffer would.
        let _ = queue.try_send(datagram);
        return;
    }
    if queues.len() >= MAX_FLOWS {
        drop(queues);
        egress.refusals.port_unreachable(route, length);
        egress
            .audit
            .flow("udp", route.original)
            .denied(Refusal::of("flow-limit"));
        return;
    }
    let (sender, queue) = mpsc::channel(OPENING_QUEUE);
    let _ = sender.try_send(datagram);
    queues.insert(route, sender);
    drop(queues);
    let flow = Flow {
        egress: Arc::clone(egress),
        route,
        queue,
        stop: stop.clone(),
    };
    egress.spawn(flow.run());
}

impl Flows {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Route, mpsc::Sender<Bytes>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Flow {
    egress: Arc<Egress>,
    route: Route,
    queue: mpsc::Receiver<Bytes>,
    stop: CancellationToken,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.egress.udp_flows.lock().remove(&self.route);
    }
}

impl Flow {
    async fn run(mut self) {
        let egress = Arc::clone(&self.egress);
        let original = self.route.original;
        let mut record = egress.audit.flow("udp", original);
        let passed = match egress
            .judge
            .judge(original, Protocol::Udp, &mut record)
            .await
        {
            Ok(passed) if passed.permit.sni_required() => {
                // QUIC hides its ClientHello from a peek; a rule that requires SNI is TCP's.
                record.denied(Refusal::of(Reason::Sni.as_str()));
                return self.refuse_until_idle().await;
            }
            Ok(passed) => passed,
            Err(Stopped::Denied(refusal)) => {
                record.denied(refusal);
                return self.refuse_until_idle().await;
            }
            Err(Stopped::Unresolved) => {
                record.ended(End::Unresolved);
                return self.refuse_queued();
            }
        };
        let opened = match egress.door.udp(&passed.permit).await {
            Ok(opened) => opened,
            Err(error) => {
                record.ended(end_of_open(&error));
                return self.refuse_queued();
            }
        };
        record.dialled(opened.dialled);
        let reply = match reply_socket(original, self.route.client) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(%error, %original, "no socket for a UDP flow");
                record.ended(End::Exhausted);
                return self.refuse_queued();
            }
        };
        let end = self.pump(&reply, opened.flow, &record).await;
        if matches!(end, End::Refused | End::ResetByPeer | End::LinkLost) {
            egress.refusals.port_unreachable(self.route, 0);
        }
        record.ended(end);
    }

    async fn pump(&mut self, reply: &UdpSocket, mut link: Datagrams, record: &Record) -> End {
        let counters = record.counters();
        let mut scratch = Vec::new();
        loop {
            let event = timeout(IDLE, async {
                tokio::select! {
                    biased;
                    Some(datagram) = self.queue.recv() => Event::FromApp(Some(datagram)),
                    ready = reply.readable() => match ready {
                        Ok(()) => Event::FromApp(None),
                        Err(_) => Event::End(End::Closed),
                    },
                    answer = link.recv() => match answer {
                        Ok(Some(datagram)) => Event::FromPeer(datagram),
                        Ok(None) => Event::End(End::Closed),
                        Err(error) => Event::End(end_of_datagrams(&error)),
                    },
                    () = self.stop.cancelled() => Event::End(End::Closed),
                }
            })
            .await;
            match event {
                Err(_idle) => return End::Idle,
                Ok(Event::End(end)) => return end,
                Ok(Event::FromApp(Some(datagram))) => {
                    if let Err(error) = send(&mut link, &datagram, &counters) {
                        return end_of_datagrams(&error);
                    }
                }
                Ok(Event::FromApp(None)) => {
                    scratch.resize(MAX_DATAGRAM, 0);
                    loop {
                        match reply.try_recv(&mut scratch) {
                            Ok(length) => {
                                let datagram = scratch.get(..length).unwrap_or_default();
                                if let Err(error) = send(&mut link, datagram, &counters) {
                                    return end_of_datagrams(&error);
                                }
                            }
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            // The client's socket is closed: the kernel refused our last answer.
                            Err(_) => return End::Closed,
                        }
                    }
                    // An idle flow must not keep 64 KiB.
                    scratch = Vec::new();
                }
                Ok(Event::FromPeer(datagram)) => match reply.try_send(&datagram) {
                    Ok(length) => {
                        counters.down.fetch_add(length as u64, Ordering::Relaxed);
                    }
                    // A full socket buffer loses the datagram, as UDP allows.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        return End::Closed;
                    }
                    Err(error) => tracing::debug!(%error, "an answer could not be delivered"),
                },
            }
        }
    }

    /// Answers each datagram of a denied flow, which is recorded once.
    async fn refuse_until_idle(mut self) {
        loop {
            let next = tokio::select! {
                next = timeout(DENIED_IDLE, self.queue.recv()) => next,
                () = self.stop.cancelled() => return,
            };
            match next {
                Ok(Some(datagram)) => {
                    self.egress
                        .refusals
                        .port_unreachable(self.route, datagram.len());
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Answers what waits; the next datagram begins a new flow.
    fn refuse_queued(mut self) {
        while let Ok(datagram) = self.queue.try_recv() {
            self.egress
                .refusals
                .port_unreachable(self.route, datagram.len());
        }
    }
}

enum Event {
    /// A queued datagram, or those that wait in the socket.
    FromApp(Option<Bytes>),
    FromPeer(Bytes),
    End(End),
}

/// Hands a datagram to the link; one that its full queue drops is not counted as sent.
fn send(link: &mut Datagrams, datagram: &[u8], counters: &Counters) -> Result<(), DatagramError> {
    match link.send(datagram) {
        Ok(true) => {
            counters
                .up
                .fetch_add(datagram.len() as u64, Ordering::Relaxed);
            Ok(())
        }
        // Longer than UDP over IPv4 carries (the IPv6 limit is higher): it is lost, as it would be
        // on the way.
        Ok(false) | Err(DatagramError::TooLong(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn end_of_datagrams(error: &DatagramError) -> End {
    match error {
        DatagramError::Refused => End::Refused,
        DatagramError::Reset => End::ResetByPeer,
        DatagramError::LinkLost => End::LinkLost,
        _ => End::LinkFault,
    }
}
