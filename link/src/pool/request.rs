//! Sends a request on the best connection, until there is an answer.

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

use crate::drain::Phase;
use crate::drain::delivery::FlowGuard;
use crate::error::{OpenError, PeerMisbehaved};
use crate::flow::client_socket::ClientSocket;
use crate::flow::early_data::{EarlyData, SentEarly};
use crate::flow::lane::{GuestLanes, LaneAccess};
use crate::flow::lease::StreamLease;
use crate::http2::chunk::{Chunk, InFlight};
use crate::pool::peer_epoch::RequestLosses;
use crate::pool::state::LinkState;
use crate::pool::{FlowClass, Pool, PooledConnection};

/// How often a request is tried, whatever the reasons.
const MAX_ATTEMPTS: usize = 16;

/// What a half sends with a request.
pub(crate) enum RequestBody<'a> {
    Nothing,
    /// The message that ends the request.
    Message(Bytes),
    /// A client that the guest is asked to accept.
    Client(&'a ClientSocket),
    /// What the app writes before the answer.
    App(EarlyData<'a>),
}

impl Pool {
    /// Sends a request and waits for a 2xx answer.
    pub(crate) async fn request(
        &self,
        class: FlowClass,
        request: &Request<()>,
        with: RequestBody<'_>,
    ) -> Result<OpenedRequest, OpenError> {
        // Feeds go on to the end, because they report how the drain went.
        let is_flow = class != FlowClass::Feed;
        if is_flow && self.drain.has_reached(Phase::Flushing) {
            return Err(OpenError::Closing);
        }
        let limit = self.config.open_timeout;
        let opened = timeout(limit, self.try_request(class, request, with));
        tokio::select! {
            biased;
            answer = opened => answer.map_err(|_| OpenError::Timeout(limit))?,
            // No caller holds the drain in this phase, so none needs the answer.
            () = self.drain.reached(Phase::Flushing), if is_flow => Err(OpenError::Closing),
        }
    }

    async fn try_request(
        &self,
        class: FlowClass,
        request: &Request<()>,
        mut with: RequestBody<'_>,
    ) -> Result<OpenedRequest, OpenError> {
        let mut start = Instant::now();
        let mut losses = RequestLosses::default();
        for _ in 0..MAX_ATTEMPTS {
            let (connection, lease) = self.wait_for_connection(class, start).await?;
            let mut request = request.clone();
            if let (RequestBody::Client(_), Some(name)) = (&with, lease.lane_header()) {
                request
                    .headers_mut()
                    .insert(wire_lane::HEADER.clone(), name);
            }
            let sent = match connection.requests.clone().ready().await {
                Ok(mut requests) => requests.send_request(request, false),
                Err(error) => Err(error),
            };
            let Ok((response, mut send)) = sent else {
                // The connection takes no more streams; nothing was sent.
                self.retire(&connection);
                continue;
            };
            let epoch = connection.epoch;
            drop(connection);
            let mut flow_guard = None;
            match &with {
                RequestBody::Nothing => {}
                RequestBody::Message(body) => {
                    let chunk = Arc::new(InFlight::default()).chunk(body.clone());
                    let _ = send.send_data(chunk, true);
                }
                // Before the guest knows of the client, so that each flush sees it.
                RequestBody::Client(socket) => {
                    let stream = send.stream_id().as_u32();
                    flow_guard = Some(socket.track(lease.deliveries(), stream));
                }
                RequestBody::App(early_data) => early_data.send(&mut send),
            }
            match answer(response, &mut send, &mut with).await {
                Ok(response) => {
                    let sent = with.sent();
                    return OpenedRequest::new(response, send, lease, flow_guard, sent);
                }
                // The host has not processed it (RFC 9113 section 8.7): another connection may.
                Err(error) if is_unprocessed(&error) => {}
                // The host passes a reset on like this: h2 then drops an answer that is still
                // queued.
                Err(error) if error.reason() == Some(h2::Reason::CONNECT_ERROR) => {
                    return Err(OpenError::Reset);
                }
                Err(error) if error.is_reset() => {
                    return Err(PeerMisbehaved::RequestReset.into());
                }
                Err(_)
                    if !with.may_have_arrived()
                        && (losses.again(epoch) || self.drain.is_draining()) =>
                {
                    // The next attempt may wait for the link as long as the first.
                    start = Instant::now();
                }
                Err(_) => return Err(OpenError::LinkLost),
            }
        }
        Err(PeerMisbehaved::NoRequestTaken.into())
    }

    /// Waits for a connection. While the guest drains, the wait has no limit but the drain's.
    async fn wait_for_connection(
        &self,
        class: FlowClass,
        start: Instant,
    ) -> Result<(PooledConnection, StreamLease), OpenError> {
        let mut state = self.state.subscribe();
        let patience = async {
            sleep_until((start + self.config.open_wait).into()).await;
            if self.drain.is_draining() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(patience);
        loop {
            if self.is_closing() {
                return Err(OpenError::Closing);
            }
            state.mark_unchanged();
            if let Some(picked) = self.pick(class) {
                return Ok(picked);
            }
            tokio::select! {
                changed = state.changed() => { let _ = changed; }
                () = self.closing() => {}
                () = &mut patience => {
                    return Err(match &*self.state.borrow() {
                        LinkState::Down(reason) => OpenError::LinkDown(reason.clone()),
                        LinkState::Up => OpenError::LinkDown("being replaced".into()),
                    });
                }
            }
        }
    }
}

impl RequestBody<'_> {
    /// Whether the lost host may have passed on bytes that must not arrive twice.
    fn may_have_arrived(&self) -> bool {
        matches!(self, Self::App(early_data) if early_data.is_sent())
    }

    fn sent(self) -> SentEarly {
        match self {
            Self::App(early_data) => early_data.finish(),
            Self::Nothing | Self::Message(_) | Self::Client(_) => SentEarly::default(),
        }
    }
}

/// Waits for the answer, and meanwhile sends what the app writes first.
async fn answer(
    mut response: ResponseFuture,
    send: &mut SendStream<Chunk>,
    with: &mut RequestBody<'_>,
) -> Result<Response<RecvStream>, h2::Error> {
    poll_fn(|cx| {
        let answered = Pin::new(&mut response).poll(cx);
        if let (Poll::Pending, RequestBody::App(early_data)) = (&answered, &mut *with) {
            early_data.poll(cx, send);
        }
        answered
    })
    .await
}

/// Whether the other half certainly did nothing for a failed request.
fn is_unprocessed(error: &h2::Error) -> bool {
    if !error.is_remote() {
        return false;
    }
    // A GOAWAY ends a stream with an error only when the host has not processed the stream.
    error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

/// A request that was answered with 2xx.
pub(crate) struct OpenedRequest {
    pub(crate) response: Response<RecvStream>,
    send: SendStream<Chunk>,
    lease: StreamLease,
    /// Keeps a client among those whose bytes are not delivered.
    pub(crate) flow_guard: Option<FlowGuard>,
    /// What the app wrote first.
    pub(crate) sent: SentEarly,
}

impl OpenedRequest {
    fn new(
        response: Response<RecvStream>,
        send: SendStream<Chunk>,
        lease: StreamLease,
        flow_guard: Option<FlowGuard>,
        sent: SentEarly,
    ) -> Result<Self, OpenError> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(Self {
                response,
                send,
                lease,
                flow_guard,
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
            .ok_or(PeerMisbehaved::MalformedProxyStatus.into())
    }

    /// How the flow gets a lane.
    pub(crate) fn lane(&self, guest: Option<&Arc<GuestLanes>>) -> LaneAccess {
        let name = self.response.headers().get(&wire_lane::HEADER);
        let stream = self.send.stream_id().as_u32();
        guest.map_or(LaneAccess::None, |guest| {
            guest.access(name.map(HeaderValue::as_bytes), stream)
        })
    }

    pub(crate) fn into_parts(self) -> (SendStream<Chunk>, RecvStream, StreamLease) {
        (self.send, self.response.into_body(), self.lease)
    }
}
