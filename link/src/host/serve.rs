//! Answers the requests of one connection, on the host.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Method, Request, Response, header};
use odyn_proto::wire::authority::CANDIDATES;
use odyn_proto::wire::feed::Opening;
use odyn_proto::wire::{authority, feed, flush, lane, proxy_status, service};
use odyn_proto::{KmsEndpoint, Refusal, Target};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::config::Tuning;
use crate::drain::Watch;
use crate::drain::delivery::{DeliveryTable, FlowGuard};
use crate::error::{LinkError, OpenError};
use crate::feed::serve::serve as serve_feed;
use crate::flow::datagrams::Datagrams;
use crate::flow::end::End;
use crate::flow::lane::{LaneAccess, NamedConnection};
use crate::flow::stream::{FlowSide, Stream};
use crate::flow::tcp::{HostSide, relay};
use crate::flow::udp::relay_udp_until;
use crate::host::config::ServerConfig;
use crate::host::flow_limit::FlowPermit;
use crate::host::handler::{FlowKind, FlowReport, Handler};
use crate::http2::accept;
use crate::http2::accept::AnswerOn;
use crate::http2::chunk::Chunk;
use crate::http2::message::{DNS_PATH, DNS_TYPE, read_message, refuse, send_message};
use crate::sockets::counters::Counters;
use crate::sockets::send_queue::{ObservedSocket, SendQueue};
use crate::transport::stream::{Peer, Transport};

/// A UDP flow that is silent for this long delays no drain of the host.
const UDP_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves one connection until it ends.
///
/// The connection ends when the guest closes it, when it fails, or when the host drains
/// and the flows have ended.
///
/// # Errors
/// When the connection failed, or flows were cut ([`Phase::Forced`](crate::drain::Phase)).
pub async fn serve<H: Handler>(
    transport: Transport,
    peer: Peer,
    handler: Arc<H>,
    config: ServerConfig,
    drain: Watch,
) -> Result<(), LinkError> {
    let deliveries = Arc::<DeliveryTable>::default();
    let lanes = config.lanes.as_ref();
    let lane = lanes.and_then(|lanes| lanes.name(&deliveries));
    let accept = Arc::new(ServedConnection {
        handler,
        peer,
        tuning: Arc::new(config.tuning.clone()),
        config,
        lane,
        deliveries,
        drain: drain.clone(),
        cut: AtomicUsize::new(0),
    });
    let feeds = TaskTracker::new();
    let result = accept::drive(
        transport,
        &accept.tuning,
        drain.draining(),
        drain.forced(),
        |request, respond| {
            let (is_feed, is_tcp) = (is_feed(&request), is_tcp(&request));
            let answer = answer(Arc::clone(&accept), request, respond);
            if is_feed {
                // An open feed does not delay the close of the connection.
                feeds.spawn(answer);
                AnswerOn::Detached
            } else if is_tcp {
                AnswerOn::Executor(answer)
            } else {
                AnswerOn::OwnTask(answer)
            }
        },
    )
    .await;
    feeds.close();
    feeds.wait().await;
    match (result, accept.cut.load(Ordering::Relaxed)) {
        // An answer need not be a flow, and a flow need not have lost bytes.
        (Err(LinkError::DrainTimeout(_)), 0) => Ok(()),
        // The connection may have ended with the last of them.
        (Ok(()) | Err(LinkError::DrainTimeout(_)), cut @ 1..) => Err(LinkError::DrainTimeout(cut)),
        (result, _) => result,
    }
}

struct ServedConnection<H> {
    handler: Arc<H>,
    peer: Peer,
    tuning: Arc<Tuning>,
    config: ServerConfig,
    /// What this connection's flows have not delivered.
    deliveries: Arc<DeliveryTable>,
    /// The name by which a guest dials a lane.
    lane: Option<NamedConnection>,
    drain: Watch,
    /// Flows that were cut.
    cut: AtomicUsize,
}

fn is_feed(request: &Request<RecvStream>) -> bool {
    request.method() == Method::POST && request.uri().path().starts_with(feed::PREFIX)
}

fn is_tcp(request: &Request<RecvStream>) -> bool {
    let protocol = request.extensions().get::<h2::ext::Protocol>();
    request.method() == Method::CONNECT && protocol.is_none()
}

/// What a request asks for.
enum GuestRequest {
    Tcp(Target),
    Udp(Target),
    Kms(KmsEndpoint),
    Dns,
    Credentials,
    Flush(Duration),
    Feed(Opening),
}

fn asked(request: &Request<RecvStream>) -> Result<GuestRequest, Refusal> {
    let candidates = request
        .headers()
        .get(&CANDIDATES)
        .map(HeaderValue::as_bytes);
    let protocol = request.extensions().get::<h2::ext::Protocol>();
    let uri = request.uri();
    match (request.method(), protocol.map(h2::ext::Protocol::as_str)) {
        (&Method::CONNECT, None) => {
            let authority = uri.authority().ok_or(Refusal::BadRequest)?.as_str();
            if let Some(name) = request.headers().get(service::SERVICE) {
                let endpoint = KmsEndpoint::from_authority(authority).ok();
                let endpoint = endpoint.filter(|_| name == service::KMS && candidates.is_none());
                return endpoint.map(GuestRequest::Kms).ok_or(Refusal::BadRequest);
            }
            let target = authority::parse_connect(authority, candidates);
            Ok(GuestRequest::Tcp(target.map_err(|_| Refusal::BadRequest)?))
        }
        (&Method::CONNECT, Some("connect-udp")) => {
            let target = authority::parse_udp_path(uri.path(), candidates);
            Ok(GuestRequest::Udp(target.map_err(|_| Refusal::BadRequest)?))
        }
        (&Method::POST, None) if uri.path() == flush::PATH => {
            let wait = request
                .headers()
                .get(flush::WAIT)
                .map(HeaderValue::as_bytes);
            let wait = wait.and_then(flush::parse_wait);
            wait.map(GuestRequest::Flush).ok_or(Refusal::BadRequest)
        }
        (&Method::POST, None) if uri.path() == service::CREDENTIALS_PATH => {
            Ok(GuestRequest::Credentials)
        }
        (&Method::POST, None) if uri.path() == DNS_PATH => {
            let kind = request
                .headers()
                .get(header::CONTENT_TYPE)
                .map(HeaderValue::as_bytes);
            if kind == Some(DNS_TYPE.as_bytes()) {
                Ok(GuestRequest::Dns)
            } else {
                Err(Refusal::BadRequest)
            }
        }
        _ if is_feed(request) => {
            let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
            let opening = feed::parse_opening(uri.path(), header);
            Ok(GuestRequest::Feed(
                opening.map_err(|_| Refusal::BadRequest)?,
            ))
        }
        _ => Err(Refusal::BadRequest),
    }
}

async fn answer<H: Handler>(
    accept: Arc<ServedConnection<H>>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Chunk>,
) {
    let result = match asked(&request) {
        Ok(asked) => {
            let body = request.into_body();
            let is_flow = !matches!(asked, GuestRequest::Feed(_));
            let _open = is_flow.then(|| accept.config.open.token());
            // Boxed, all but the TCP flow itself: each of the many idle flows then takes only the
            // room that its own kind needs.
            match asked {
                GuestRequest::Tcp(target) => {
                    let dial = accept.handler.connect_tcp(target, &accept.peer);
                    accept.tcp(Box::pin(dial), body, &mut respond).await
                }
                GuestRequest::Kms(endpoint) => {
                    let dial = accept.handler.connect_kms(endpoint, &accept.peer);
                    accept.tcp(Box::pin(dial), body, &mut respond).await
                }
                GuestRequest::Udp(target) => Box::pin(accept.udp(target, body, &mut respond)).await,
                GuestRequest::Dns => Box::pin(accept.dns(body, &mut respond)).await,
                GuestRequest::Credentials => Box::pin(accept.credentials(&mut respond)).await,
                GuestRequest::Flush(wait) => {
                    let gone = accept.drain.forced();
                    let answer =
                        crate::drain::flush::answer(&accept.deliveries, wait, &mut respond, gone);
                    Box::pin(answer).await;
                    Ok(())
                }
                GuestRequest::Feed(opening) => {
                    Box::pin(accept.feed(opening, body, &mut respond)).await
                }
            }
        }
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = result {
        refuse(&mut respond, refusal);
    }
}

type Dial<'a> = Pin<Box<dyn Future<Output = Result<(TcpStream, SocketAddr), Refusal>> + Send + 'a>>;

impl<H: Handler> ServedConnection<H> {
    async fn tcp(
        &self,
        dial: Dial<'_>,
        body: RecvStream,
        respond: &mut SendResponse<Chunk>,
    ) -> Result<(), Refusal> {
        let permit = self.permit()?;
        let start = Instant::now();
        let Some((socket, dialled)) = unless_reset(respond, dial).await? else {
            return Ok(());
        };
        let counters = Arc::new(Counters::default());
        let mut socket = ObservedSocket::new(socket);
        // Before the guest knows of the flow, so that each flush sees it.
        let flow_guard = self.track(respond, dialled, &counters, Some(socket.send_queue()));
        let Some(send) = accept(respond, dialled, self.lane.as_ref()) else {
            return Ok(());
        };
        let lane = LaneAccess::Host(flow_guard.delivery());
        let side = Some(FlowSide::Host(HostSide {
            flow_guard,
            drain: self.drain.clone(),
        }));
        let stream = Stream::new(send, body, Arc::clone(&self.tuning), side, lane, None);
        let end = relay(socket, stream, Arc::clone(&counters)).await;
        // A handler that hears of the end finds room for the next flow.
        drop(permit);
        self.report(FlowKind::Tcp, dialled, &counters, start, end);
        Ok(())
    }

    async fn udp(
        &self,
        target: Target,
        body: RecvStream,
        respond: &mut SendResponse<Chunk>,
    ) -> Result<(), Refusal> {
        let permit = self.permit()?;
        let start = Instant::now();
        let dial = self.handler.connect_udp(target, &self.peer);
        let Some((socket, dialled)) = unless_reset(respond, dial).await? else {
            return Ok(());
        };
        let counters = Arc::new(Counters::default());
        let flow_guard = self.track(respond, dialled, &counters, None);
        let Some(send) = accept(respond, dialled, None) else {
            return Ok(());
        };
        let flow = Datagrams::new(send, body, self.tuning.send_buffer, None);
        let leave = silence(&self.drain, &counters);
        let relay = relay_udp_until(socket, flow, Arc::clone(&counters), leave);
        let mut end = tokio::select! {
            biased;
            end = relay => end,
            () = self.drain.forced() => End::LinkLost,
        };
        if end == End::LinkLost && self.drain.is_forced() {
            // Datagrams on their way are lost, as on any network.
            end = End::Cut { undelivered: 0 };
            self.drain.note_cut(0);
        }
        drop(flow_guard);
        drop(permit);
        self.report(FlowKind::Udp, dialled, &counters, start, end);
        Ok(())
    }

    async fn dns(
        &self,
        mut body: RecvStream,
        respond: &mut SendResponse<Chunk>,
    ) -> Result<(), Refusal> {
        let exchange = async {
            let query = match read_message(&mut body).await {
                Ok(query) => query,
                Err(OpenError::TooLong(_)) => return Err(Refusal::BadRequest),
                Err(_) => return Err(Refusal::Internal),
            };
            self.handler.dns(query, &self.peer).await
        };
        let Some(message) = unless_reset(respond, exchange).await? else {
            return Ok(());
        };
        send_message(respond, DNS_TYPE, message).await;
        Ok(())
    }

    async fn credentials(&self, respond: &mut SendResponse<Chunk>) -> Result<(), Refusal> {
        let fetched = self.handler.credentials(&self.peer);
        if let Some(json) = unless_reset(respond, fetched).await? {
            send_message(respond, service::CREDENTIALS_TYPE, json).await;
        }
        Ok(())
    }

    fn track(
        &self,
        respond: &SendResponse<Chunk>,
        dialled: SocketAddr,
        counters: &Arc<Counters>,
        send_queue: Option<Arc<SendQueue>>,
    ) -> FlowGuard {
        let stream = respond.stream_id().as_u32();
        self.deliveries
            .track(stream, dialled, Arc::clone(counters), send_queue)
    }

    async fn feed(
        &self,
        opening: Opening,
        body: RecvStream,
        respond: &mut SendResponse<Chunk>,
    ) -> Result<(), Refusal> {
        let open = self.handler.feed(opening, &self.peer);
        let Some(sink) = unless_reset(respond, open).await? else {
            return Ok(());
        };
        let stop = async {
            self.drain.draining().await;
            self.config.open.close();
            self.config.open.wait().await;
        };
        serve_feed(sink, body, respond, stop).await;
        Ok(())
    }

    fn permit(&self) -> Result<Option<FlowPermit>, Refusal> {
        match &self.config.flows {
            None => Ok(None),
            Some(flows) => flows.acquire().map(Some).ok_or(Refusal::LimitReached),
        }
    }

    fn report(
        &self,
        kind: FlowKind,
        dialled: SocketAddr,
        counters: &Counters,
        start: Instant,
        end: End,
    ) {
        // Up is from the socket: towards the guest.
        let (received, sent) = counters.get();
        let duration = start.elapsed();
        if matches!(end, End::Cut { .. }) {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
        let peer = self.peer;
        self.handler.ended(&FlowReport {
            kind,
            peer,
            dialled,
            sent,
            received,
            duration,
            end,
        });
    }
}

/// Ready when a UDP flow of a draining host was silent for [`UDP_IDLE_TIMEOUT`]. UDP has no end of
/// a flow. The flow's next datagram reaches the host process that comes next.
async fn silence(drain: &Watch, counters: &Counters) {
    drain.draining().await;
    loop {
        let before = counters.get();
        sleep(UDP_IDLE_TIMEOUT).await;
        if counters.get() == before {
            return;
        }
    }
}

/// Runs `work`; `None` when the guest gives up before.
async fn unless_reset<T>(
    respond: &mut SendResponse<Chunk>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<Option<T>, Refusal> {
    tokio::select! {
        biased;
        done = work => done.map(Some),
        reset = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
            debug!(?reset, "the guest gave up before the answer");
            Ok(None)
        }
    }
}

fn accept(
    respond: &mut SendResponse<Chunk>,
    dialled: SocketAddr,
    lane: Option<&NamedConnection>,
) -> Option<h2::SendStream<Chunk>> {
    let mut response = Response::new(());
    if let Some(lane) = lane {
        response
            .headers_mut()
            .insert(lane::HEADER.clone(), lane.header());
    }
    let value = HeaderValue::try_from(proxy_status::write_next_hop(dialled)).ok()?;
    response
        .headers_mut()
        .insert(proxy_status::HEADER.clone(), value);
    respond.send_response(response, false).ok()
}
