//! UDP flows: the datagrams between one socket of the app and one destination.
//!
//! The first datagram arrives at the tproxy listener. The flow then opens a socket that is bound to
//! the original destination and connected to the client. From then on the kernel delivers the
//! client's datagrams to that socket, and answers leave through it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use nix::errno::Errno;
use odyn_link::drain::Guard;
use odyn_link::{Counters, DatagramError, Datagrams, flow_to_socket, socket_to_flow};
use odyn_policy::Protocol;
use odyn_proto::{Dialled, OrigDst};
use odyn_udp_batch::MAX_SENT;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Egress;
use crate::audit::{End, Record, Refusal};
use crate::capture::udp_recv::{MAX_DATAGRAM, UdpFlowKey, receive, try_receive};
use crate::capture::udp_reply::UdpReply;
use crate::egress::flow;
use crate::egress::flow::{AllowedFlow, AppStream, Captured, RefusalCause};

/// A flow without datagrams for this long ends. RFC 4787 (REQ-5) asks for two minutes or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// How long datagrams of a denied client and destination count as one flow.
const DENIED_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Datagrams in the queue of a flow that is being opened. Further ones are lost, as UDP allows.
const MAX_OPENING_QUEUE: usize = 4096;
/// Bytes in the queues of all flows that are being opened.
const MAX_OPENING_BYTES: usize = 8 << 20;
/// Turns after which the task yields to other flows and to the link.
const TURNS_PER_YIELD: u32 = 4;
/// Open flows, at most. Each holds a descriptor here and on the host.
const MAX_FLOWS: usize = 16_384;

/// The open flows, shared by the listeners of both families.
pub(super) struct Flows {
    queues: Mutex<HashMap<UdpFlowKey, mpsc::Sender<Queued>>>,
    room: Arc<Semaphore>,
}

/// A queued datagram, with its share of [`MAX_OPENING_BYTES`].
struct Queued {
    datagram: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            room: Arc::new(Semaphore::new(MAX_OPENING_BYTES)),
        }
    }
}

/// Receives captured datagrams until `stop`, then the ones already in the socket.
pub(super) async fn listen(socket: UdpSocket, egress: Arc<Egress>, stop: CancellationToken) {
    // Delays the end of the drain until the socket is empty.
    let _handover = egress.link.handover();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => try_receive(&socket, &mut buffer),
            received = receive(&socket, &mut buffer) => received,
        };
        match received {
            Ok((length, route)) => {
                dispatch(&egress, route, buffer.get(..length).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                egress
                    .audit
                    .flow("udp", "unknown")
                    .denied(Refusal::of("no-destination"));
            }
            // An error that an earlier datagram caused; the kernel queued it on the socket.
            Err(error) => tracing::debug!(%error, "receive"),
        }
    }
}

/// Hands a datagram to its flow, or opens one for it.
pub(super) fn dispatch(egress: &Arc<Egress>, route: UdpFlowKey, datagram: &[u8]) {
    let length = datagram.len();
    let room = Arc::clone(&egress.udp_flows.room);
    // A datagram has at most 65 535 bytes, so the length fits.
    let Ok(room) = room.try_acquire_many_owned(u32::try_from(length).unwrap_or(u32::MAX)) else {
        return;
    };
    let datagram = Queued {
        datagram: Bytes::copy_from_slice(datagram),
        _room: room,
    };
    let mut queues = egress.udp_flows.lock();
    if let Some(queue) = queues.get(&route) {
        // A full queue loses the datagram, as a full socket buffer would.
        let _ = queue.try_send(datagram);
        return;
    }
    if queues.len() >= MAX_FLOWS {
        drop(queues);
        egress.answers.port_unreachable(route, length);
        egress
            .audit
            .flow("udp", route.original)
            .denied(Refusal::of("flow-limit"));
        return;
    }
    let (sender, queue) = mpsc::channel(MAX_OPENING_QUEUE);
    let _ = sender.try_send(datagram);
    queues.insert(route, sender);
    drop(queues);
    let flow = UdpFlow {
        egress: Arc::clone(egress),
        route,
        queue,
    };
    let (egress_of_flow, handover) = (Arc::clone(egress), egress.link.handover());
    egress.spawn(async move { flow::run(flow, &egress_of_flow, handover).await });
}

impl Flows {
    /// Ends the flow of a socket that the app has closed.
    pub(super) fn close(&self, route: UdpFlowKey) {
        self.lock().remove(&route);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<UdpFlowKey, mpsc::Sender<Queued>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct UdpFlow {
    egress: Arc<Egress>,
    route: UdpFlowKey,
    queue: mpsc::Receiver<Queued>,
}

impl Drop for UdpFlow {
    fn drop(&mut self) {
        self.queue.close();
        let mut queues = self.egress.udp_flows.lock();
        // After `close` a new flow may have the same key.
        if queues.get(&self.route).is_some_and(mpsc::Sender::is_closed) {
            queues.remove(&self.route);
        }
    }
}

impl Captured for UdpFlow {
    const PROTOCOL: Protocol = Protocol::Udp;

    fn original(&self) -> OrigDst {
        self.route.original
    }

    /// Refuses the flow. A denied flow stays open until it is idle: each datagram gets an ICMP
    /// error, and one record covers all. After any other refusal the next datagram opens a new
    /// flow.
    async fn refuse(self, cause: RefusalCause, handover: Guard) {
        if cause == RefusalCause::Denied {
            drop(handover);
            self.refuse_until_idle().await;
        } else {
            self.refuse_queued();
            drop(handover);
        }
    }

    /// Datagrams have no first bytes to check: QUIC encrypts its ClientHello.
    async fn into_stream(self) -> AppStream<Self> {
        AppStream::None(self)
    }

    async fn carry(mut self, allowed: AllowedFlow<'_>) {
        let AllowedFlow {
            admitted,
            mut record,
            egress,
            handover,
        } = allowed;
        let opened = match egress.link.udp(&admitted.permit).await {
            Ok(opened) => opened,
            Err(error) => return flow::not_opened(self, &error, record, handover).await,
        };
        record.dialled(opened.dialled.map(Dialled));
        let reply = match egress.answers.reply(self.route) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(%error, original = %self.route.original, "cannot open a socket for a UDP flow");
                record.ended(End::Exhausted);
                return self.refuse_queued();
            }
        };
        // From here on the link knows the flow and delays the end of the drain itself.
        drop(handover);
        let mut link = opened.flow;
        let end = match self.pump(&reply, &mut link, &record).await {
            Some(end) => end,
            None => return self.finish(&reply, link, record).await,
        };
        if matches!(end, End::Refused | End::ResetByPeer | End::LinkLost) {
            egress.answers.port_unreachable(self.route, 0);
        }
        record.ended(end);
    }
}

impl UdpFlow {
    /// Moves datagrams until the flow ends. Returns `None` when the guest ends.
    async fn pump(
        &mut self,
        reply: &UdpReply,
        link: &mut Datagrams,
        record: &Record,
    ) -> Option<End> {
        let counters = record.counters();
        // Both are empty and without capacity while the loop waits: an idle flow holds no memory.
        let (mut queued, mut answers) = (Vec::new(), Vec::new());
        let mut turn = 0;
        loop {
            turn = (turn + 1) % TURNS_PER_YIELD;
            if turn == 0 {
                yield_now().await;
            }
            let event = timeout(IDLE_TIMEOUT, async {
                tokio::select! {
                    // Datagrams in the queue are older than those in the socket.
                    biased;
                    count = self.queue.recv_many(&mut queued, MAX_SENT) => match count {
                        0 => Event::End(End::Closed),
                        _ => Event::FromQueue,
                    },
                    ready = reply.readable() => match ready {
                        Ok(()) => Event::FromApp,
                        Err(_) => Event::End(End::Closed),
                    },
                    answer = link.recv_batch(&mut answers) => match answer {
                        Ok(true) => Event::FromPeer,
                        Ok(false) => Event::End(End::Closed),
                        Err(error) => Event::End(end_of_datagrams(&error)),
                    },
                    () = self.egress.stop.cancelled() => Event::LastOnes,
                }
            })
            .await;
            match event {
                Err(_idle) => return Some(End::Idle),
                Ok(Event::End(end)) => return Some(end),
                Ok(Event::LastOnes) => return None,
                Ok(Event::FromQueue) => {
                    if let Err(error) = send(link, &std::mem::take(&mut queued), &counters) {
                        return Some(end_of_datagrams(&error));
                    }
                }
                Ok(Event::FromApp) => {
                    match socket_to_flow(reply, |datagrams| link.send_batch(datagrams), &counters) {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return Some(end_of_datagrams(&error)),
                        // The kernel refused the last answer: the client's socket is closed.
                        Err(_) => return Some(End::Closed),
                    }
                    // Answers get their turn even if the app never stops sending.
                    match link.recv_batch(&mut answers).now_or_never() {
                        Some(Ok(true)) | None => {}
                        Some(Ok(false)) => return Some(End::Closed),
                        Some(Err(error)) => return Some(end_of_datagrams(&error)),
                    }
                }
                Ok(Event::FromPeer) => {}
            }
            if send_answers(reply, &std::mem::take(&mut answers), &counters).is_err() {
                return Some(End::Closed);
            }
        }
    }

    /// Sends the rest of what the ended app sent, and waits for the host's confirmation.
    async fn finish(mut self, reply: &UdpReply, mut link: Datagrams, record: Record) {
        let counters = record.counters();
        let egress = Arc::clone(&self.egress);
        tokio::select! {
            sent = self.send_last(reply, &mut link, &counters) => if let Err(error) = sent {
                return record.ended(end_of_datagrams(&error));
            },
            () = egress.link.drain_watch().forced() => {}
        }
        let (taken, _) = counters.get();
        super::tcp::finish(record, link.finish(taken).await);
    }

    async fn send_last(
        &mut self,
        reply: &UdpReply,
        link: &mut Datagrams,
        counters: &Counters,
    ) -> Result<(), DatagramError> {
        // The queue first, as its datagrams are older.
        while let Ok(queued) = self.queue.try_recv() {
            send_all(link, &queued.datagram, counters).await?;
        }
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            // Asks the kernel: the runtime may not have seen the latest datagram yet.
            match reply.recv_now(&mut buffer) {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    send_all(link, datagram, counters).await?;
                }
                // The kernel reports once that the last answer found a closed socket.
                Err(Errno::ECONNREFUSED | Errno::EINTR) => {}
                Err(_) => return Ok(()),
            }
        }
    }

    /// Answers each datagram of a denied flow with an ICMP error.
    async fn refuse_until_idle(mut self) {
        loop {
            let next = tokio::select! {
                next = timeout(DENIED_IDLE_TIMEOUT, self.queue.recv()) => next,
                () = self.egress.stop.cancelled() => return,
            };
            match next {
                Ok(Some(queued)) => {
                    self.egress
                        .answers
                        .port_unreachable(self.route, queued.datagram.len());
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Answers the queued datagrams with ICMP errors. The next datagram opens a new flow.
    fn refuse_queued(mut self) {
        while let Ok(queued) = self.queue.try_recv() {
            self.egress
                .answers
                .port_unreachable(self.route, queued.datagram.len());
        }
    }
}

enum Event {
    /// Datagrams that came before the flow had a socket.
    FromQueue,
    /// The socket has datagrams.
    FromApp,
    FromPeer,
    /// The app has ended.
    LastOnes,
    End(End),
}

/// Sends datagrams over the link, and counts those that it took.
///
/// The link drops datagrams when its queue is full, and those too long for UDP over IPv4 (IPv6
/// allows longer ones).
fn send(link: &mut Datagrams, queued: &[Queued], counters: &Counters) -> Result<(), DatagramError> {
    let sent = link.send_batch(queued.iter().map(|queued| &*queued.datagram))?;
    counters.up.fetch_add(sent.bytes, Ordering::Relaxed);
    Ok(())
}

/// Sends answers to the app. A full socket buffer loses a datagram, as UDP allows.
///
/// # Errors
/// The app's socket is gone.
fn send_answers(reply: &UdpReply, answers: &[Bytes], counters: &Counters) -> io::Result<()> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let mut rest = answers;
    while !rest.is_empty() {
        let passed = flow_to_socket(reply, rest, counters, is_gone)?;
        rest = rest.get(passed + 1..).unwrap_or_default();
    }
    Ok(())
}

/// Sends a datagram over the link, and waits for room.
async fn send_all(
    link: &mut Datagrams,
    datagram: &[u8],
    counters: &Counters,
) -> Result<(), DatagramError> {
    match link.send_all(datagram).await {
        Ok(()) => {
            counters
                .up
                .fetch_add(datagram.len() as u64, Ordering::Relaxed);
            Ok(())
        }
        Err(DatagramError::TooLong(_)) => Ok(()),
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
