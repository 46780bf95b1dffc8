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

/// A flow without datagrams for this long is over. RFC 4787 (REQ-5) asks for two minutes or more.
const IDLE: Duration = Duration::from_secs(150);
/// How long a denied client and destination are remembered as one flow.
const DENIED_IDLE: Duration = Duration::from_secs(30);
/// Datagrams that may wait while a flow is being opened; further ones are lost, as UDP allows.
const OPENING_QUEUE: usize = 4096;
/// Bytes that may wait so, of all flows together.
const OPENING_BYTES: usize = 8 << 20;
/// Turns after which others get theirs, and the link takes from the flow's queue.
const YIELD: u32 = 4;
/// Flows at one time; each holds a descriptor here and in the host half.
const MAX_FLOWS: usize = 16_384;

/// The flows that exist, shared by the listeners of both families.
pub(super) struct Flows {
    queues: Mutex<HashMap<UdpFlowKey, mpsc::Sender<Queued>>>,
    room: Arc<Semaphore>,
}

/// A datagram that waits, and the room that it takes.
struct Queued {
    datagram: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            room: Arc::new(Semaphore::new(OPENING_BYTES)),
        }
    }
}

/// Receives captured datagrams until `stop`, and then those that are there already.
pub(super) async fn listen(socket: UdpSocket, egress: Arc<Egress>, stop: CancellationToken) {
    // Until the socket is empty.
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
            // An error that the kernel queued on the socket for some earlier datagram.
            Err(error) => tracing::debug!(%error, "receive"),
        }
    }
}

/// Gives a datagram to its flow, or begins one.
pub(super) fn dispatch(egress: &Arc<Egress>, route: UdpFlowKey, datagram: &[u8]) {
    let length = datagram.len();
    let room = Arc::clone(&egress.udp_flows.room);
    // At most 65 535: it fits.
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
    let (sender, queue) = mpsc::channel(OPENING_QUEUE);
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
    /// The program's socket is gone: its flow ends.
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
        // A flow that was closed from outside may have a successor by now.
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

    /// A denied flow is remembered: each of its datagrams is answered, and it is recorded once.
    /// After any other refusal the next datagram begins a new flow.
    async fn refuse(self, cause: RefusalCause, handover: Guard) {
        if cause == RefusalCause::Denied {
            drop(handover);
            self.refuse_until_idle().await;
        } else {
            self.refuse_queued();
            drop(handover);
        }
    }

    /// QUIC hides its ClientHello from a peek, and other datagrams have no first bytes of a flow.
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
                tracing::warn!(%error, original = %self.route.original, "no socket for a UDP flow");
                record.ended(End::Exhausted);
                return self.refuse_queued();
            }
        };
        // From here on the link's flow says when there is nothing more to hand over.
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
    /// Moves datagrams until the flow ends, or the guest does: `None`.
    async fn pump(
        &mut self,
        reply: &UdpReply,
        link: &mut Datagrams,
        record: &Record,
    ) -> Option<End> {
        let counters = record.counters();
        // Nothing is left in them when anything is waited for, nor any room: a flow may be idle.
        let (mut queued, mut answers) = (Vec::new(), Vec::new());
        let mut turn = 0;
        loop {
            turn = (turn + 1) % YIELD;
            if turn == 0 {
                yield_now().await;
            }
            let event = timeout(IDLE, async {
                tokio::select! {
                    // The queue is older than the socket.
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
                        // The client's socket is closed: the kernel refused our last answer.
                        Err(_) => return Some(End::Closed),
                    }
                    // A program that never stops sending gets its answers all the same.
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

    /// The program is gone: what it has sent is sent on, without losing any, and confirmed.
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
        // In the order in which they came: the queue is older.
        while let Ok(queued) = self.queue.try_recv() {
            send_all(link, &queued.datagram, counters).await?;
        }
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            // Asks the kernel, not the runtime, which may not have heard yet of a datagram.
            match reply.recv_now(&mut buffer) {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    send_all(link, datagram, counters).await?;
                }
                // Our last answer found nobody; told once.
                Err(Errno::ECONNREFUSED | Errno::EINTR) => {}
                Err(_) => return Ok(()),
            }
        }
    }

    /// Answers each datagram of a denied flow, which is recorded once.
    async fn refuse_until_idle(mut self) {
        loop {
            let next = tokio::select! {
                next = timeout(DENIED_IDLE, self.queue.recv()) => next,
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

    /// Answers what waits; the next datagram begins a new flow.
    fn refuse_queued(mut self) {
        while let Ok(queued) = self.queue.try_recv() {
            self.egress
                .answers
                .port_unreachable(self.route, queued.datagram.len());
        }
    }
}

enum Event {
    /// Datagrams that came before there was a socket.
    FromQueue,
    /// Datagrams wait in the socket.
    FromApp,
    FromPeer,
    /// The program is gone.
    LastOnes,
    End(End),
}

/// Hands datagrams to the link. Those that its full queue drops are not counted as sent, nor those
/// that are longer than UDP over IPv4 carries (the IPv6 limit is higher).
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

/// Hands a datagram to the link, and waits for room there.
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
