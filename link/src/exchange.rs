//! Asks the other half, on whichever connection is best, until there is an answer.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Request, Response, StatusCode};
use odyn_proto::Refusal;
use odyn_proto::wire::{lane as wire_lane, proxy_status};
use tokio::time::{sleep_until, timeout};

use crate::chunk::{Chunk, InFlight};
use crate::client::{Client, LinkState};
use crate::delivery::Tracked;
use crate::drain::Phase;
use crate::early::{Early, Sent};
use crate::error::OpenError;
use crate::lane;
use crate::lane::Access;
use crate::losses::Losses;
use crate::pool::{Class, Connection, Slot};
use crate::reverse::Arrival;

/// How often a request is tried, whatever the reasons.
const ATTEMPTS: usize = 16;

/// What goes with a request.
pub(crate) enum With<'a> {
    Nothing,
    /// The request ends with it.
    Body(Bytes),
    /// A client that the guest is asked to take.
    Client(&'a Arrival),
    /// What a program writes before the answer.
    Program(Early<'a>),
}

impl Client {
    /// Sends a request and waits for a 2xx answer.
    pub(crate) async fn exchange(
        &self,
        class: Class,
        request: &Request<()>,
        with: With<'_>,
    ) -> Result<Exchange, OpenError> {
        // Feeds go on to the end: they tell how the drain went.
        let is_flow = class != Class::Feed;
        if is_flow && self.phase() >= Phase::Flushing {
            return Err(OpenError::Closing);
        }
        let limit = self.pool.config.open_timeout;
        let exchange = timeout(limit, self.try_exchange(class, request, with));
        tokio::select! {
            biased;
            opened = exchange => opened.map_err(|_| OpenError::Timeout(limit))?,
            // Only what nobody needs any more is still being asked for then.
            _ = self.pool.drain.reached(Phase::Flushing), if is_flow => Err(OpenError::Closing),
        }
    }

    async fn try_exchange(
        &self,
        class: Class,
        request: &Request<()>,
        mut with: With<'_>,
    ) -> Result<Exchange, OpenError> {
        let mut start = Instant::now();
        let mut losses = Losses::default();
        for _ in 0..ATTEMPTS {
            let (connection, slot) = self.pick(class, start).await?;
            let mut request = request.clone();
            if let (With::Client(_), Some(name)) = (&with, slot.lane_header()) {
                request
                    .headers_mut()
                    .insert(wire_lane::HEADER.clone(), name);
            }
            let sent = match connection.requests.clone().ready().await {
                Ok(mut requests) => requests.send_request(request, false),
                Err(error) => Err(error),
            };
            let Ok((response, mut send)) = sent else {
                // It takes no more streams; nothing was sent.
                self.pool.retire(&connection);
                continue;
            };
            let generation = connection.generation;
            drop(connection);
            let mut tracked = None;
            match &with {
                With::Nothing => {}
                With::Body(body) => {
                    let chunk = Arc::new(InFlight::default()).chunk(body.clone());
                    let _ = send.send_data(chunk, true);
                }
                // Before the guest knows of the client, so that no flush can miss it.
                With::Client(arrival) => {
                    let stream = send.stream_id().as_u32();
                    tracked = Some(arrival.track(slot.registry(), stream));
                }
                With::Program(early) => early.send(&mut send),
            }
            match answer(response, &mut send, &mut with).await {
                Ok(response) => {
                    let sent = with.sent();
                    return Exchange::new(response, send, slot, tracked, sent);
                }
                // The host has not looked at it (RFC 9113 section 8.7): another connection may.
                Err(error) if is_unprocessed(&error) => {}
                // How the host passes a reset on: h2 drops an answer that is still queued then.
                Err(error) if error.reason() == Some(h2::Reason::CONNECT_ERROR) => {
                    return Err(OpenError::Reset);
                }
                Err(error) if error.is_reset() => {
                    return Err(OpenError::Protocol("the host reset the request"));
                }
                Err(_)
                    if !with.may_have_arrived()
                        && (losses.again(generation) || self.pool.drain.is_draining()) =>
                {
                    // A wait for the link of its own.
                    start = Instant::now();
                }
                Err(_) => return Err(OpenError::LinkLost),
            }
        }
        Err(OpenError::Protocol("the host takes no request"))
    }

    /// A connection, waiting for one if need be: while the guest drains, until that is over.
    async fn pick(&self, class: Class, start: Instant) -> Result<(Connection, Slot), OpenError> {
        let mut state = self.pool.state.subscribe();
        let patience = async {
            sleep_until((start + self.pool.config.open_wait).into()).await;
            if self.pool.drain.is_draining() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(patience);
        loop {
            if self.pool.closing.is_cancelled() {
                return Err(OpenError::Closing);
            }
            state.mark_unchanged();
            if let Some(picked) = self.pool.pick(class) {
                return Ok(picked);
            }
            tokio::select! {
                changed = state.changed() => { let _ = changed; }
                () = self.pool.closing.cancelled() => {}
                () = &mut patience => {
                    return Err(match &*self.pool.state.borrow() {
                        LinkState::Down(reason) => OpenError::LinkDown(reason.clone()),
                        LinkState::Up => OpenError::LinkDown("being replaced".into()),
                    });
                }
            }
        }
    }
}

impl With<'_> {
    /// Whether a host half that went away may have passed on what must not come twice.
    fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Program(early) if early.is_sent())
    }

    fn sent(self) -> Sent {
        match self {
            Self::Program(early) => early.finish(),
            Self::Nothing | Self::Body(_) | Self::Client(_) => Sent::default(),
        }
    }
}

/// Waits for the answer, and sends meanwhile what a program writes first.
async fn answer(
    mut response: ResponseFuture,
    send: &mut SendStream<Chunk>,
    with: &mut With<'_>,
) -> Result<Response<RecvStream>, h2::Error> {
    poll_fn(|cx| {
        let answered = Pin::new(&mut response).poll(cx);
        if let (Poll::Pending, With::Program(early)) = (&answered, &mut *with) {
            early.poll(cx, send);
        }
        answered
    })
    .await
}

/// Whether the other half certainly did nothing for a request that failed.
fn is_unprocessed(error: &h2::Error) -> bool {
    if !error.is_remote() {
        return false;
    }
    // A GOAWAY ends a stream with an error only when it is not among those that are processed.
    error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// A request that was answered with 2xx.
pub(crate) struct Exchange {
    pub(crate) response: Response<RecvStream>,
    send: SendStream<Chunk>,
    slot: Slot,
    /// A client's place among what is not delivered.
    pub(crate) tracked: Option<Tracked>,
    /// What a program wrote first.
    pub(crate) sent: Sent,
}

impl Exchange {
    fn new(
        response: Response<RecvStream>,
        send: SendStream<Chunk>,
        slot: Slot,
        tracked: Option<Tracked>,
        sent: Sent,
    ) -> Result<Self, OpenError> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(Self {
                response,
                send,
                slot,
                tracked,
                sent,
            });
        }
        let header = response
            .headers()
            .get(&proxy_status::HEADER)
            .map(HeaderValue::as_bytes);
        Err(OpenError::Refused(Refusal::from_response(status, header)))
    }

    pub(crate) fn dialled(&self) -> Result<Option<SocketAddr>, OpenError> {
        let Some(value) = self.response.headers().get(&proxy_status::HEADER) else {
            return Ok(None);
        };
        proxy_status::parse(value.as_bytes())
            .map(|status| status.next_hop)
            .ok_or(OpenError::Protocol("malformed proxy-status"))
    }

    /// The flow's way to a lane.
    pub(crate) fn lane(&self, guest: Option<&Arc<lane::Guest>>) -> Access {
        let name = self.response.headers().get(&wire_lane::HEADER);
        let stream = self.send.stream_id().as_u32();
        guest.map_or(Access::None, |guest| {
            guest.access(name.map(HeaderValue::as_bytes), stream)
        })
    }

    pub(crate) fn into_parts(self) -> (SendStream<Chunk>, RecvStream, Slot) {
        (self.send, self.response.into_body(), self.slot)
    }
}
