//! One UDP flow on the link: datagrams in capsules.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use h2::{Reason, RecvStream, SendStream};
use odyn_proto::wire::capsule;
use odyn_proto::wire::capsule::{CapsuleDecoder, MAX_DATAGRAM};
use odyn_udp_batch::{MAX_SENT, Taken};

use crate::drain::flush::FlushReport;
use crate::error::DatagramError;
use crate::flow::end::End;
use crate::flow::lease::StreamLease;
use crate::flow::tcp::GuestSide;
use crate::http2::chunk::{Chunk, InFlight};

// What a capsule may carry is what a socket may send.
const _: () = assert!(MAX_DATAGRAM == odyn_udp_batch::MAX_DATAGRAM);

/// The link's end of a UDP flow. Dropping it ends the flow.
#[derive(Debug)]
pub struct Datagrams {
    sender: DatagramSender,
    receiver: DatagramReceiver,
    side: Option<GuestSide>,
}

/// The sending half of a UDP flow.
#[derive(Debug)]
pub struct DatagramSender {
    send: SendStream<Chunk>,
    in_flight: Arc<InFlight>,
    /// Largest number of bytes that wait in h2.
    queue: usize,
    dropped: u64,
    _lease: Option<Arc<StreamLease>>,
}

/// The receiving half of a UDP flow.
#[derive(Debug)]
pub struct DatagramReceiver {
    recv: RecvStream,
    decoder: CapsuleDecoder,
    /// The error behind the datagrams that were returned last.
    failed: Option<DatagramError>,
    _lease: Option<Arc<StreamLease>>,
}

impl Datagrams {
    pub(crate) fn new(
        mut send: SendStream<Chunk>,
        recv: RecvStream,
        queue: usize,
        guest: Option<(StreamLease, GuestSide)>,
    ) -> Self {
        // At least one datagram of any size fits.
        let queue = queue.max(2 * (MAX_DATAGRAM + capsule::OVERHEAD));
        send.reserve_capacity(queue);
        let (lease, side) = guest.unzip();
        let lease = lease.map(Arc::new);
        Self {
            sender: DatagramSender {
                send,
                in_flight: Arc::default(),
                queue,
                dropped: 0,
                _lease: lease.clone(),
            },
            receiver: DatagramReceiver {
                recv,
                decoder: CapsuleDecoder::default(),
                failed: None,
                _lease: lease,
            },
            side,
        }
    }

    /// As [`DatagramSender::send`].
    ///
    /// # Errors
    /// When the flow has ended, or the datagram is longer than 65 507 bytes.
    pub fn send(&mut self, datagram: &[u8]) -> Result<bool, DatagramError> {
        self.sender.send(datagram)
    }

    /// As [`DatagramReceiver::recv`].
    ///
    /// # Errors
    /// When the flow was reset or lost.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, DatagramError> {
        self.receiver.recv().await
    }

    /// As [`DatagramSender::send_batch`].
    ///
    /// # Errors
    /// When the flow has ended.
    pub fn send_batch<'a>(
        &mut self,
        datagrams: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Taken, DatagramError> {
        self.sender.send_batch(datagrams)
    }

    /// As [`DatagramReceiver::recv_batch`].
    ///
    /// # Errors
    /// When the flow was reset or lost.
    pub async fn recv_batch(&mut self, batch: &mut Vec<Bytes>) -> Result<bool, DatagramError> {
        self.receiver.recv_batch(batch).await
    }

    /// As [`DatagramSender::send`], but waits for room instead of dropping the datagram.
    ///
    /// # Errors
    /// When the flow has ended, or the datagram is longer than 65 507 bytes.
    pub async fn send_all(&mut self, datagram: &[u8]) -> Result<(), DatagramError> {
        self.sender.send_all(datagram).await
    }

    /// Ends the flow while the guest drains. Waits until the host has sent everything on, or there
    /// is no more time. `taken` is the payload that was sent.
    pub async fn finish(mut self, taken: u64) -> End {
        let stream = self.sender.send.stream_id().as_u32();
        self.sender.end();
        let in_flight = Arc::clone(&self.sender.in_flight);
        let Some(mut side) = self.side.take() else {
            in_flight.empty().await;
            return End::Closed;
        };
        let all_sent = tokio::select! {
            biased;
            () = in_flight.empty() => true,
            () = side.drain.forced() => false,
        };
        side.handover = None;
        if all_sent && (in_flight.lost() || !side.drain.is_draining()) {
            return if in_flight.lost() {
                End::LinkLost
            } else {
                End::Closed
            };
        }
        let report = side.flush_result.wait().await;
        let undelivered = match (&*report, report.take(stream)) {
            (FlushReport::Lost, _) => return End::LinkLost,
            (FlushReport::Answered(_), Some(flow)) => taken.saturating_sub(flow.acknowledged),
            (FlushReport::Answered(_) | FlushReport::HandedOver, None) if all_sent => 0,
            _ => taken,
        };
        if all_sent && undelivered == 0 {
            return End::Closed;
        }
        side.drain.note_cut(undelivered);
        End::Cut { undelivered }
    }

    /// Splits the flow into its halves, which take no part in the guest's drain.
    pub fn split(self) -> (DatagramSender, DatagramReceiver) {
        (self.sender, self.receiver)
    }
}

impl DatagramSender {
    /// Sends one datagram, or drops it when the queue is full. Then the result is `false`.
    ///
    /// # Errors
    /// When the flow has ended, or the datagram is longer than 65 507 bytes.
    pub fn send(&mut self, datagram: &[u8]) -> Result<bool, DatagramError> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(DatagramError::TooLong(datagram.len()));
        }
        let taken = self.send_batch(std::iter::once(datagram))?;
        Ok(taken.datagrams == 1)
    }

    /// Sends several datagrams at once. Returns how many were not dropped, and their bytes. A
    /// datagram longer than 65 507 bytes is skipped.
    ///
    /// # Errors
    /// When the flow has ended.
    pub fn send_batch<'a>(
        &mut self,
        datagrams: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Taken, DatagramError> {
        let needed: usize = datagrams.clone().map(needed_for).sum();
        if self.send.capacity() < needed {
            self.check_alive()?;
            self.send.reserve_capacity(self.queue);
        }
        let mut room = self.send.capacity();
        let mut wire = BytesMut::with_capacity(needed.min(room));
        let mut taken = Taken::default();
        for datagram in datagrams.filter(|datagram| datagram.len() <= MAX_DATAGRAM) {
            match room.checked_sub(needed_for(datagram)) {
                Some(rest) => room = rest,
                None => {
                    self.dropped += 1;
                    continue;
                }
            }
            capsule::put(&mut wire, datagram);
            taken.add(datagram);
        }
        if wire.is_empty() {
            return Ok(taken);
        }
        let chunk = self.in_flight.chunk(wire.freeze());
        if self.send.send_data(chunk, false).is_err() {
            self.check_alive()?;
            return Err(DatagramError::LinkLost);
        }
        self.send.reserve_capacity(self.queue);
        Ok(taken)
    }

    async fn send_all(&mut self, datagram: &[u8]) -> Result<(), DatagramError> {
        let needed = needed_for(datagram);
        while datagram.len() <= MAX_DATAGRAM && self.send.capacity() < needed {
            self.send.reserve_capacity(self.queue);
            match poll_fn(|cx| self.send.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(of_error(&error)),
                None => {
                    self.check_alive()?;
                    return Err(DatagramError::LinkLost);
                }
            }
        }
        self.send(datagram).map(|_| ())
    }

    /// Sends END_STREAM, behind what is queued. A reset would discard that.
    pub(crate) fn end(&mut self) {
        // An error means that the stream has ended already.
        let chunk = self.in_flight.chunk(Bytes::new());
        let _ = self.send.send_data(chunk, true);
    }

    /// Number of datagrams that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Ends the flow with an ICMP error: no socket is open at the destination.
    pub fn refuse(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }

    /// Waits until the other half gives the flow up, or the link is lost.
    /// ([`DatagramReceiver::recv`] sees a flow that the other half ends properly.)
    pub async fn closed(&mut self) -> DatagramError {
        match poll_fn(|cx| self.send.poll_reset(cx)).await {
            Ok(reason) => of_reason(reason),
            Err(error) => of_error(&error),
        }
    }

    fn check_alive(&mut self) -> Result<(), DatagramError> {
        let waker = futures::task::noop_waker_ref();
        match self
            .send
            .poll_reset(&mut std::task::Context::from_waker(waker))
        {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(reason)) => Err(of_reason(reason)),
            Poll::Ready(Err(error)) => Err(of_error(&error)),
        }
    }
}

impl Drop for DatagramSender {
    fn drop(&mut self) {
        self.end();
    }
}

impl DatagramReceiver {
    /// Receives a datagram; `None` when the other half has ended the flow. Safe to cancel.
    ///
    /// # Errors
    /// When the flow was reset or lost, or the other half does not follow the protocol.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, DatagramError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        loop {
            if let Some(datagram) = self.decoder.next()? {
                return Ok(Some(datagram));
            }
            match self.recv.data().await {
                Some(Ok(bytes)) => {
                    let _ = self.recv.flow_control().release_capacity(bytes.len());
                    self.decoder.push(bytes);
                }
                Some(Err(error)) => return Err(of_error(&error)),
                None => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
            }
        }
    }

    /// Waits for a datagram, and adds it and those behind it to `batch`. It adds as many as one
    /// system call can send. `false` when the other half has ended the flow. Safe to cancel.
    ///
    /// # Errors
    /// When the flow was reset or lost, or the other half does not follow the protocol. Datagrams
    /// that came before are returned first.
    pub async fn recv_batch(&mut self, batch: &mut Vec<Bytes>) -> Result<bool, DatagramError> {
        let Some(first) = self.recv().await? else {
            return Ok(false);
        };
        let mut bytes = first.len();
        batch.push(first);
        // No await from here on, so that a cancelled call loses nothing of the batch.
        while batch.len() < MAX_SENT && bytes < MAX_DATAGRAM {
            match self.recv().now_or_never() {
                Some(Ok(Some(next))) => {
                    bytes += next.len();
                    batch.push(next);
                }
                Some(Err(failed)) => {
                    self.failed = Some(failed);
                    break;
                }
                // The next call sees the end again.
                Some(Ok(None)) | None => break,
            }
        }
        Ok(true)
    }
}

/// Bytes that a datagram takes in the queue.
fn needed_for(datagram: &[u8]) -> usize {
    datagram.len() + capsule::OVERHEAD
}

fn of_reason(reason: Reason) -> DatagramError {
    if reason == Reason::CONNECT_ERROR {
        DatagramError::Refused
    } else {
        DatagramError::Reset
    }
}

fn of_error(error: &h2::Error) -> DatagramError {
    match error.reason() {
        Some(reason) if error.is_reset() => of_reason(reason),
        _ => DatagramError::LinkLost,
    }
}
