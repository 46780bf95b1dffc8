//! Reversed connections, in the guest: dials them and answers the host's requests.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Method, Request, Response};
use odyn_proto::wire::ingress::{Incoming, IngressHello};
use odyn_proto::wire::{flush, ingress, lane as wire_lane};
use odyn_proto::{Endpoint, Refusal, identity};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::config::{Tuning, processors};
use crate::drain::flush::{FlushReport, FlushResult, answer_deferred};
use crate::drain::{Guard, GuardKind, Phase, Watch};
use crate::error::LinkError;
use crate::flow::lane;
use crate::flow::lane::LaneAccess;
use crate::flow::stream::{FlowSide, Stream};
use crate::flow::tcp::GuestSide;
use crate::http2::accept;
use crate::http2::accept::AnswerOn;
use crate::http2::chunk::Chunk;
use crate::http2::message::refuse;
use crate::pool::jitter::Jitter;
use crate::transport::dial::dial;
use crate::transport::preamble::say_reversed;

/// How the guest serves the clients that the host has for it.
pub trait IngressHandler: Send + Sync + 'static {
    /// Connects a client with the app, and returns when its connection has ended.
    ///
    /// The host may ask for any port: the handler decides which it serves.
    fn serve(&self, incoming: Incoming, client: PendingClient) -> impl Future<Output = ()> + Send;

    /// Whether clients of this port need long computations, such as cryptography. Each then gets a
    /// task of its own; the others run in their connection's executor.
    fn computes(&self, port: NonZeroU16) -> bool {
        let _ = port;
        false
    }
}

/// A client that waits for an answer. Dropping it resets its connection.
#[derive(Debug)]
pub struct PendingClient {
    respond: SendResponse<Chunk>,
    body: RecvStream,
    tuning: Arc<Tuning>,
    side: GuestSide,
    open_flow: Guard,
    lane: LaneAccess,
}

/// Which side ended before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// The client has gone, or the host has.
    Client,
    /// The app has ended.
    App,
}

impl PendingClient {
    /// Waits until the client or the app no longer needs an answer.
    pub async fn gone(&mut self) -> Abandoned {
        tokio::select! {
            biased;
            () = self.side.drain.draining() => Abandoned::App,
            _ = poll_fn(|cx| self.respond.poll_reset(cx)) => Abandoned::Client,
        }
    }

    /// Accepts the client, and returns its stream; `None` when the client has gone.
    pub fn accept(mut self) -> Option<Stream> {
        let send = self.respond.send_response(Response::new(()), false).ok()?;
        let side = Some(FlowSide::Guest(self.side));
        let mut stream = Stream::new(send, self.body, self.tuning, side, self.lane, None);
        stream.open_flow = Some(self.open_flow);
        Some(stream)
    }

    /// Refuses the client: the host resets its connection.
    pub fn refuse(mut self, refusal: Refusal) {
        refuse(&mut self.respond, refusal);
    }
}

/// Configuration of a guest's reversed connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReversedConfig {
    /// What both halves share.
    pub tuning: Tuning,
    /// Connections that the guest keeps open from the start. The processing of the clients' small
    /// messages is spread over them: by default one for each processor, two to eight.
    pub connections: usize,
    /// Largest number of connections. The guest dials one more when clients take three quarters of
    /// the room. The host takes sixteen of one guest.
    pub most_connections: usize,
    /// Longest wait for the transport to connect.
    pub dial_timeout: Duration,
    /// First pause before dialling again; doubled at each failure, with jitter.
    pub backoff_min: Duration,
    /// Longest pause before dialling again. It is short, because a dial of the same machine costs
    /// little, and a restarted host should have its guests back at once.
    pub backoff_max: Duration,
}

impl Default for ReversedConfig {
    fn default() -> Self {
        Self {
            tuning: Tuning::default(),
            connections: processors().clamp(2, 8),
            most_connections: 12,
            dial_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_millis(250),
        }
    }
}

/// The reversed connections of a guest. They take no more clients from
/// [`Phase::Draining`](crate::drain::Phase) on, and end after the last client.
#[derive(Debug)]
pub struct ReversedConnections {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the connections share.
struct ReversedPool<I> {
    endpoint: Endpoint,
    config: ReversedConfig,
    tuning: Arc<Tuning>,
    hello: IngressHello,
    handler: Arc<I>,
    lanes: Option<Arc<lane::GuestLanes>>,
    drain: Watch,
    /// Cancelled: every connection is dropped.
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Number of connections that the guest keeps.
    conns: AtomicUsize,
}

/// The state of one reversed connection.
struct ReversedConn<I> {
    pool: Arc<ReversedPool<I>>,
    /// Whether the host has sent the first request.
    greeted: AtomicBool,
    /// Whether the connection has carried a client.
    used: AtomicBool,
    /// Number of requests that the host has deferred.
    deferred: AtomicUsize,
    /// What the host reports on the clients' delivery when they end.
    flush_result: FlushResult,
}

impl ReversedConnections {
    /// Starts to dial `endpoint`, and has `handler` serve the clients. The guest introduces itself
    /// there with `hello`. The clients take part in `drain`.
    ///
    /// Must be called in a tokio runtime.
    pub fn start<I: IngressHandler>(
        endpoint: Endpoint,
        config: ReversedConfig,
        hello: IngressHello,
        handler: Arc<I>,
        drain: Watch,
    ) -> Self {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let tuning = Arc::new(config.tuning.clone());
        let pool = Arc::new(ReversedPool {
            lanes: lane::GuestLanes::new(endpoint.clone(), &tuning),
            tuning,
            endpoint,
            config,
            hello,
            handler,
            drain,
            stop: stop.clone(),
            tasks: tasks.clone(),
            conns: AtomicUsize::new(0),
        });
        for _ in 0..pool.config.connections.max(1) {
            pool.add_connection();
        }
        tasks.close();
        Self { stop, tasks }
    }

    /// Waits until the connections have ended, as they do when a drain ends. After `limit` it drops
    /// them.
    pub async fn close(&self, limit: Duration) {
        let _ = timeout(limit, self.tasks.wait()).await;
        self.cut();
    }

    /// Drops the connections with all that is on them.
    pub fn cut(&self) {
        self.stop.cancel();
    }
}

impl Drop for ReversedConnections {
    fn drop(&mut self) {
        self.cut();
    }
}

impl<I: IngressHandler> ReversedPool<I> {
    /// Adds a connection that the guest keeps open.
    fn add_connection(self: &Arc<Self>) {
        self.conns.fetch_add(1, Ordering::Relaxed);
        let keep = Arc::clone(self).keep();
        let stop = self.stop.clone();
        self.tasks.spawn(stop.run_until_cancelled_owned(keep));
    }

    /// Adds a connection when clients take three quarters of the room.
    fn grow(self: &Arc<Self>) {
        let conns = self.conns.load(Ordering::Relaxed);
        let streams = usize::try_from(self.tuning.max_streams()).unwrap_or(usize::MAX);
        let room = conns.saturating_mul(streams) / 4 * 3;
        // Two clients at the same moment may add two connections, which does no harm.
        if self.drain.guards(GuardKind::Flow) > room && conns < self.config.most_connections {
            self.add_connection();
        }
    }

    /// Keeps one connection open.
    async fn keep(self: Arc<Self>) {
        let mut pause = self.config.backoff_min;
        let mut jitter = Jitter::new();
        let mut reason = String::new();
        while !self.drain.is_draining() {
            let conn = Arc::new(ReversedConn {
                pool: Arc::clone(&self),
                greeted: AtomicBool::new(false),
                used: AtomicBool::new(false),
                deferred: AtomicUsize::new(0),
                flush_result: FlushResult::default(),
            });
            let since = Instant::now();
            let ended = conn.run().await;
            if conn.greeted.load(Ordering::Relaxed) && since.elapsed() >= MIN_STABLE_TIME {
                pause = self.config.backoff_min;
                reason.clear();
                match ended {
                    Ok(()) => debug!("the host closed a connection for ingress"),
                    Err(error) => info!(%error, "a connection for ingress was lost"),
                }
            } else if let Err(error) = ended {
                let error = error.to_string();
                if error != reason {
                    warn!(endpoint = %self.endpoint, error, "no connection for ingress");
                    reason = error;
                }
            }
            tokio::select! {
                () = self.drain.draining() => break,
                () = sleep(jitter.spread(pause)) => {}
            }
            pause = (pause * 2).min(self.config.backoff_max);
        }
    }
}

impl<I: IngressHandler> ReversedConn<I> {
    /// Dials and serves the connection to its end.
    async fn run(self: &Arc<Self>) -> Result<(), LinkError> {
        let pool = &self.pool;
        let tuning = &pool.tuning;
        let mut transport = tokio::select! {
            () = pool.drain.draining() => return Ok(()),
            dialled = dial(&pool.endpoint, tuning, pool.config.dial_timeout) => dialled?,
        };
        say_reversed(&mut transport, tuning.handshake_timeout).await?;
        let served = accept::drive(
            transport,
            tuning,
            pool.drain.draining(),
            // It carries what is asked and answered in the end, too.
            pending(),
            |request, respond| {
                self.greeted.store(true, Ordering::Relaxed);
                let port = request.uri().port_u16().and_then(NonZeroU16::new);
                let is_apart = port.is_none_or(|port| pool.handler.computes(port));
                let answer = Arc::clone(self).answer(request, respond);
                if is_apart {
                    AnswerOn::OwnTask(answer)
                } else {
                    AnswerOn::Executor(answer)
                }
            },
        );
        let ended = tokio::select! {
            ended = served => ended,
            never = self.not_asked() => match never {},
        };
        // Clients that wait for the host's report get none.
        self.flush_result.set(FlushReport::Lost);
        ended
    }

    /// Reports on the clients when the guest can't ask the host, or need not. Never ready.
    async fn not_asked(&self) -> Infallible {
        self.pool.drain.reached(Phase::Flushing).await;
        if !self.used.load(Ordering::Relaxed) {
            self.flush_result.set(FlushReport::delivered());
        } else if self.deferred.load(Ordering::Relaxed) == 0 {
            self.flush_result.set(FlushReport::Unconfirmed);
        }
        self.pool.drain.reached(Phase::Done).await;
        self.flush_result.set(FlushReport::Unconfirmed);
        pending().await
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Chunk>,
    ) {
        match (request.method(), request.uri().path()) {
            (&Method::CONNECT, _) => match incoming(&request) {
                Ok(incoming) => {
                    let client = self.pending(request, respond);
                    self.pool.handler.serve(incoming, client).await;
                }
                Err(refusal) => refuse(&mut respond, refusal),
            },
            (&Method::GET, ingress::PATH) => match self.pool.say_hello() {
                Ok(response) => {
                    let _ = respond.send_response(response, true);
                }
                Err(error) => {
                    debug!(%error, "the hello is not a response");
                    refuse(&mut respond, Refusal::Internal);
                }
            },
            (&Method::POST, flush::PATH) => {
                let phase = match self.deferred.fetch_add(1, Ordering::Relaxed) {
                    0 => Phase::Flushing,
                    1 => Phase::Forced,
                    _ => return refuse(&mut respond, Refusal::BadRequest),
                };
                let step = async {
                    self.pool.drain.reached(phase).await;
                    self.pool.drain.step()
                };
                answer_deferred(step, respond, request.into_body(), &self.flush_result).await;
            }
            _ => refuse(&mut respond, Refusal::BadRequest),
        }
    }

    fn pending(&self, request: Request<RecvStream>, respond: SendResponse<Chunk>) -> PendingClient {
        self.used.store(true, Ordering::Relaxed);
        self.pool.grow();
        let drain = self.pool.drain.clone();
        let name = request.headers().get(&wire_lane::HEADER);
        let lane = self.pool.lanes.as_ref().map_or(LaneAccess::None, |lanes| {
            lanes.access(
                name.map(HeaderValue::as_bytes),
                respond.stream_id().as_u32(),
            )
        });
        PendingClient {
            lane,
            respond,
            body: request.into_body(),
            tuning: Arc::clone(&self.pool.tuning),
            open_flow: drain.guard(GuardKind::Flow),
            side: GuestSide {
                handover: Some(drain.guard(GuardKind::Handover)),
                drain,
                flush_result: self.flush_result.clone(),
            },
        }
    }
}

impl<I> ReversedPool<I> {
    fn say_hello(&self) -> Result<Response<()>, http::Error> {
        let IngressHello { identity, ports } = &self.hello;
        Response::builder()
            .header(identity::GUEST, identity.name.as_str())
            .header(identity::RUN, identity.run.to_string())
            .header(ingress::PORTS, ingress::write_ports(ports))
            .body(())
    }
}

/// A connection that ended sooner than this was no success. The guest dials a host that accepts and
/// drops connections as seldom as one that is away.
const MIN_STABLE_TIME: Duration = Duration::from_secs(1);

fn incoming(request: &Request<RecvStream>) -> Result<Incoming, Refusal> {
    // Clients do not use extended CONNECT.
    if request.extensions().get::<h2::ext::Protocol>().is_some() {
        return Err(Refusal::BadRequest);
    }
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let authority = request.uri().authority().ok_or(Refusal::BadRequest)?;
    ingress::parse_incoming(
        authority.as_str(),
        header(ingress::CLIENT),
        header(ingress::LOCAL),
    )
    .map_err(|_| Refusal::BadRequest)
}
