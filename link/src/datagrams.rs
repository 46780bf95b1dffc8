//! One UDP flow on the link: datagrams in capsules.

use std::{future::poll_fn, sync::Arc, task::Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use crate::{
    chunk::{Chunk, InFlight},
    error::DatagramError,
    pool::Slot,
    wire::capsule::{self, Decoder, MAX_DATAGRAM},
};

/// The link's end of a UDP flow. Dropping it ends the flow.
#[derive(Debug)]
pub struct Datagrams {
    sender: DatagramSender,
    receiver: DatagramReceiver,
}

/// The half that sends.
#[derive(Debug)]
pub struct DatagramSender {
    send: SendStream<Chunk>,
    in_flight: Arc<InFlight>,
    /// Most bytes that wait in h2.
    queue: usize,
    dropped: u64,
    _slot: Option<Arc<Slot>>,
}

/// The half that receives.
#[derive(Debug)]
pub struct DatagramReceiver {
    recv: RecvStream,
    decoder: Decoder,
    _slot: Option<Arc<Slot>>,
}

impl Datagrams {
    pub(crate) fn new(
        mut send: SendStream<Chunk>,
        recv: RecvStream,
        queue: usize,
        slot: Option<Slot>,
    ) -> Self {
        // At least one datagram of any size fits.
        let queue = queue.max(2 * (MAX_DATAGRAM + capsule::OVERHEAD));
        send.reserve_capacity(queue);
        let slot = slot.map(Arc::new);
        Self {
            sender: DatagramSender {
                send,
                in_flight: Arc::default(),
                queue,
                dropped: 0,
                _slot: slot.clone(),
            },
            receiver: DatagramReceiver {
                recv,
                decoder: Decoder::default(),
                _slot: slot,
            },
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

    /// The halves by themselves.
    pub fn split(self) -> (DatagramSender, DatagramReceiver) {
        (self.sender, self.receiver)
    }
}

impl DatagramSender {
    /// Sends one datagram, or drops it when the queue is full, as a network would: `false`.
    ///
    /// # Errors
    /// When the flow has ended, or the datagram is longer than 65 507 bytes.
    pub fn send(&mut self, datagram: &[u8]) -> Result<bool, DatagramError> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(DatagramError::TooLong(datagram.len()));
        }
        if self.send.capacity() < datagram.len() + capsule::OVERHEAD {
            self.check_alive()?;
            self.send.reserve_capacity(self.queue);
            if self.send.capacity() < datagram.len() + capsule::OVERHEAD {
                self.dropped += 1;
                return Ok(false);
            }
        }
        let chunk = self.in_flight.chunk(capsule::encode(datagram));
        if self.send.send_data(chunk, false).is_err() {
            self.check_alive()?;
            return Err(DatagramError::LinkLost);
        }
        self.send.reserve_capacity(self.queue);
        Ok(true)
    }

    /// Datagrams that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Ends the flow with an ICMP error: nobody listens at the destination.
    pub fn refuse(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }

    /// Waits until the other half has given the flow up or the link is gone. (A flow that the
    /// other half ends properly is seen by [`DatagramReceiver::recv`].)
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
        // END_STREAM, so that what is queued still goes; a reset would throw it away. No more
        // than an error is lost when the stream has ended already.
        let _ = self
            .send
            .send_data(self.in_flight.chunk(Bytes::new()), true);
    }
}

impl DatagramReceiver {
    /// The next datagram; `None` when the other half has ended the flow. Safe to cancel.
    ///
    /// # Errors
    /// When the flow was reset or lost, or the other half does not follow the protocol.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, DatagramError> {
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
