//! The guest's side: opens flows on a pool of connections.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::ext::Protocol;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Uri, header};
use odyn_proto::wire::authority;
use odyn_proto::wire::authority::CANDIDATES;
use odyn_proto::wire::flush::Undelivered;
use odyn_proto::wire::ingress::Incoming;
use odyn_proto::{Endpoint, Target};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::DropGuard;

use crate::config::{ClientConfig, Tuning};
use crate::datagrams::Datagrams;
use crate::delivery::Registry;
use crate::drain::{Busy, Drain, Phase};
use crate::early::Early;
use crate::error::OpenError;
use crate::exchange::{Exchange, With};
use crate::lane;
use crate::lane::Access;
use crate::pool::connection::{Leave, drive};
use crate::pool::{Class, Pool, Slot};
use crate::relay::{Network, Program};
use crate::reverse::{Arrival, Greeted, request as reverse_request};
use crate::session::Shutdown;
use crate::stream::{Side, Stream};

/// Authority of the requests that are not for a target.
pub(crate) const OUTER: &str = "enclaver-outer";

/// Path of DNS messages.
pub(crate) const DNS_PATH: &str = "/dns-query";

/// Media type of DNS messages (RFC 8484).
pub(crate) const DNS_TYPE: &str = "application/dns-message";

/// Longest DNS message, in bytes.
pub(crate) const MAX_DNS: usize = 65_535;

/// Whether the host can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// At least one connection has answered.
    Up,
    /// None has; the last failure.
    Down(String),
}

/// A flow that the host has opened.
#[derive(Debug)]
pub struct Opened<F> {
    /// The flow.
    pub flow: F,
    /// The address that the host dialled, as it says.
    pub dialled: Option<SocketAddr>,
}

/// How long the host half may take to say what is delivered after the end of a drain.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What was left at the end of [`Client::drain`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Flows that were cut; each says so itself ([`End::Cut`](crate::End::Cut)).
    pub cut: usize,
    /// Bytes of them that are not known to be delivered.
    pub undelivered: u64,
    /// Flows that had ended for the guest, whose last bytes are not delivered.
    pub earlier: Vec<Undelivered>,
}

/// Opens flows. Clones share the pool; when the last is dropped, no more flows can be opened, and
/// those that are open go on.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) pool: Arc<Pool>,
    tuning: Arc<Tuning>,
    /// A guest's: lanes of the flows that it opens.
    lanes: Option<Arc<lane::Guest>>,
    /// Which connections its TCP flows are for.
    tcp: Class,
    _closing: Arc<DropGuard>,
}

impl Client {
    /// Starts to dial `endpoint`, and goes on for as long as a clone of the client lives.
    ///
    /// Must be called in a tokio runtime.
    pub fn new(endpoint: Endpoint, config: ClientConfig) -> Self {
        let mut client = Self::of(Pool::dialling(endpoint.clone(), config), Class::Bulk);
        client.lanes = lane::Guest::new(endpoint, &client.tuning);
        client
    }

    /// A client without connections: it has those that it is given. The name is for the log.
    /// `shutdown` is the host half's.
    pub fn adopting(name: String, config: ClientConfig, shutdown: impl Into<Shutdown>) -> Self {
        Self::of(Pool::adopting(name, config, shutdown.into()), Class::Any)
    }

    fn of(pool: Arc<Pool>, tcp: Class) -> Self {
        Self {
            tuning: Arc::new(pool.config.tuning.clone()),
            lanes: None,
            tcp,
            _closing: Arc::new(pool.closing.clone().drop_guard()),
            pool,
        }
    }

    /// Opens flows on this connection too, until it takes no more: then says why.
    ///
    /// It is driven on until its flows have ended, whether or not the answer is waited for.
    pub fn adopt(&self, greeted: Greeted) -> impl Future<Output = Leave> + Send + use<> {
        let registry = Arc::<Registry>::default();
        for parked in greeted.parked {
            let (pool, registry) = (Arc::clone(&self.pool), Arc::clone(&registry));
            self.pool.tasks.spawn(async move {
                let over = async {
                    pool.closing.cancelled().await;
                    pool.flows.none().await;
                };
                let force = pool.shutdown.force.cancelled();
                parked.redeem(&registry, over, force).await;
            });
        }
        let pool = Arc::clone(&self.pool);
        let opened = greeted.opened;
        let generation = pool.generations.now();
        let driven = self
            .pool
            .tasks
            .spawn(async move { drive(&pool, opened, registry, generation).await });
        async {
            let lost = |error: JoinError| Leave::Lost(error.to_string());
            driven.await.unwrap_or_else(lost)
        }
    }

    /// Whether the host can be reached, and changes of it.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.pool.state.subscribe()
    }

    /// Flows that are open or being opened.
    pub fn flows(&self) -> usize {
        self.pool.flows.count()
    }

    /// Holds [`Phase::Flushing`] off: for whoever is about to open a flow.
    pub fn busy(&self) -> Busy {
        self.pool.drain.busy()
    }

    /// How far the end is.
    pub fn phase(&self) -> Phase {
        self.pool.drain.phase()
    }

    /// The drain, for others to take part in.
    pub fn shared_drain(&self) -> Drain {
        self.pool.drain.clone()
    }

    /// Waits for a phase, or one after it.
    pub async fn reached(&self, phase: Phase) {
        self.pool.drain.reached(phase).await;
    }

    /// Begins [`Phase::Draining`]: the program is gone.
    pub fn begin_drain(&self) {
        self.pool.drain.advance(Phase::Draining, Duration::ZERO);
    }

    /// Carries a flow from its beginning to its end where a connection of the pool is carried: TCP
    /// flows that are opened and relayed in there share its turns and its writes. Between two waits
    /// it must not compute for long.
    ///
    /// Must be called in a tokio runtime.
    pub fn carry(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.pool.carry(self.tcp, flow);
    }

    /// Opens a TCP flow. Waits for the host's answer, and before for a link that is down (for
    /// [`ClientConfig::open_wait`]) or full.
    ///
    /// # Errors
    /// When the host refuses, the link is or goes down, or the target can't be asked for.
    pub async fn connect_tcp(&self, target: &Target) -> Result<Opened<Stream>, OpenError> {
        self.open_tcp(target, With::Nothing).await
    }

    /// As [`Client::connect_tcp`], for a program whose connection is there already and is to be
    /// given to [`relay`](crate::relay()): what it writes first is read, and goes along.
    ///
    /// # Errors
    /// As [`Client::connect_tcp`]. What was read is lost then. When the link is lost after it was
    /// sent, the host is not asked again, for the target may have it.
    pub async fn connect_tcp_for(
        &self,
        target: &Target,
        program: &TcpStream,
    ) -> Result<Opened<Stream>, OpenError> {
        // At the end of the guest it matters more that a request can be sent again.
        let with = if self.pool.drain.is_draining() {
            With::Nothing
        } else {
            With::Program(Early::new(program))
        };
        self.open_tcp(target, with).await
    }

    async fn open_tcp(&self, target: &Target, with: With<'_>) -> Result<Opened<Stream>, OpenError> {
        let (authority, candidates) = authority::write_connect(target)?;
        let uri = authority_uri(&authority)
            .map_err(|_| OpenError::Protocol("the authority is not a URI"))?;
        let request = request(Method::CONNECT, uri, candidates)?;
        let busy = self.busy();
        let exchange = self.exchange(self.tcp, &request, with).await?;
        let dialled = exchange.dialled()?;
        let lane = exchange.lane(self.lanes.as_ref());
        let flow = self.program_stream(exchange, busy, lane);
        Ok(Opened { flow, dialled })
    }

    /// The flow that was opened for somebody in this guest.
    pub(crate) fn program_stream(
        &self,
        mut exchange: Exchange,
        busy: Busy,
        lane: Access,
    ) -> Stream {
        let sent = std::mem::take(&mut exchange.sent);
        let (send, recv, slot) = exchange.into_parts();
        let side = Some(Side::Program(self.program(busy, &slot)));
        let mut stream = Stream::new(send, recv, Arc::clone(&self.tuning), side, lane, Some(slot));
        stream.began_with(sent);
        stream
    }

    /// Opens a UDP flow.
    ///
    /// # Errors
    /// As [`Client::connect_tcp`].
    pub async fn connect_udp(&self, target: &Target) -> Result<Opened<Datagrams>, OpenError> {
        let (path, candidates) = authority::write_udp_path(target)?;
        let mut request = request(Method::CONNECT, outer_uri(&path)?, candidates)?;
        request
            .extensions_mut()
            .insert(Protocol::from_static("connect-udp"));
        // RFC 9297 section 3.4.
        request
            .headers_mut()
            .insert("capsule-protocol", HeaderValue::from_static("?1"));
        let busy = self.busy();
        let exchange = self.exchange(Class::Quick, &request, With::Nothing).await?;
        let dialled = exchange.dialled()?;
        let (send, recv, slot) = exchange.into_parts();
        let program = self.program(busy, &slot);
        let flow = Datagrams::new(send, recv, self.tuning.send_buffer, Some((slot, program)));
        Ok(Opened { flow, dialled })
    }

    /// Opens a client's connection to a guest that this client has adopted connections of.
    ///
    /// # Errors
    /// As [`Client::connect_tcp`], with the guest in the place of the host.
    pub async fn connect_ingress(
        &self,
        incoming: &Incoming,
        arrival: &Arrival,
    ) -> Result<Stream, OpenError> {
        let request = reverse_request(incoming)
            .map_err(|_| OpenError::Protocol("the addresses are not headers"))?;
        let mut exchange = self
            .exchange(self.tcp, &request, With::Client(arrival))
            .await?;
        let network = exchange.tracked.take().map(|tracked| {
            let Shutdown { drain, force } = self.pool.shutdown.clone();
            Network {
                tracked,
                drain,
                force,
            }
        });
        let lane = network.as_ref().map(|network| network.tracked.entry());
        let side = network.map(Side::Network);
        let (send, recv, slot) = exchange.into_parts();
        let tuning = Arc::clone(&self.tuning);
        let lane = lane.map_or(Access::None, Access::Host);
        Ok(Stream::new(send, recv, tuning, side, lane, Some(slot)))
    }

    fn program(&self, busy: Busy, slot: &Slot) -> Program {
        Program {
            drain: self.pool.drain.clone(),
            busy: Some(busy),
            outcome: slot.outcome(),
        }
    }

    /// Asks the host's resolver. `query` and the answer are DNS messages.
    ///
    /// # Errors
    /// When the host refuses or does not answer in [`ClientConfig::dns_timeout`], or the link is
    /// or goes down.
    pub async fn dns(&self, query: Bytes) -> Result<Bytes, OpenError> {
        if query.len() > MAX_DNS {
            return Err(OpenError::TooLong(query.len()));
        }
        let limit = self.pool.config.dns_timeout;
        let asked = async {
            match self.dns_exchange(query.clone()).await {
                // In the middle of the answer. Before it, the request was sent again already.
                Err(OpenError::LinkLost) => self.dns_exchange(query).await,
                done => done,
            }
        };
        timeout(limit, asked)
            .await
            .map_err(|_| OpenError::Timeout(limit))?
    }

    async fn dns_exchange(&self, query: Bytes) -> Result<Bytes, OpenError> {
        let mut request = request(Method::POST, outer_uri(DNS_PATH)?, None)?;
        let media_type = HeaderValue::from_static(DNS_TYPE);
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
        let mut exchange = self
            .exchange(Class::Quick, &request, With::Body(query))
            .await?;
        let declared = exchange.response.headers().get(header::CONTENT_TYPE);
        if declared.map(HeaderValue::as_bytes) != Some(DNS_TYPE.as_bytes()) {
            return Err(OpenError::Protocol("the answer is not a DNS message"));
        }
        read_message(exchange.response.body_mut()).await
    }

    /// Ends every flow without losing a byte: see [`Phase`]. What is not delivered after `limit`,
    /// or when `force` is ready, is cut; then it takes at most a second more. Connections stay.
    pub async fn drain(&self, limit: Duration, force: impl Future<Output = ()>) -> Drained {
        let drain = &self.pool.drain;
        let end = tokio::time::Instant::now() + limit;
        self.begin_drain();
        let natural = async {
            drain.idle().await;
            let rest = end.saturating_duration_since(tokio::time::Instant::now());
            drain.advance(Phase::Flushing, rest);
            self.flushed().await
        };
        let flushed = tokio::select! {
            biased;
            earlier = natural => Some(earlier),
            () = sleep_until(end) => None,
            () = force => None,
        };
        let earlier = match flushed {
            Some(earlier) => earlier,
            None => {
                drain.advance(Phase::Forced, LAST_WORDS);
                let late = LAST_WORDS * 2;
                timeout(late, self.flushed()).await.unwrap_or_default()
            }
        };
        let (cut, undelivered) = drain.cuts();
        Drained {
            // Those of whoever does not relay them.
            cut: cut + self.flows() + drain.unsettled(),
            undelivered,
            earlier,
        }
    }

    /// Waits until the host half has said of each connection what is delivered, and every flow has
    /// ended of it. Says what belongs to none of them.
    async fn flushed(&self) -> Vec<Undelivered> {
        let verdicts = self.pool.verdicts().await;
        self.pool.flows.none().await;
        self.pool.drain.settled().await;
        verdicts.iter().flat_map(|verdict| verdict.rest()).collect()
    }

    /// Closes the connections: opens nothing more, and waits up to `limit` for what is open to end
    /// and for the other half to have read everything. Says how many flows were cut then.
    pub async fn close(&self, limit: Duration) -> usize {
        self.pool.closing.cancel();
        self.pool.tasks.close();
        // Each connection says GOAWAY and is flushed.
        let closed = timeout(limit, self.pool.tasks.wait()).await;
        let cut = if closed.is_ok() { 0 } else { self.flows() };
        self.pool.cut.cancel();
        self.pool.tasks.wait().await;
        self.pool.drain.advance(Phase::Done, Duration::ZERO);
        cut
    }
}

pub(crate) fn outer_uri(path: &str) -> Result<Uri, OpenError> {
    path_uri(OUTER, path).map_err(|_| OpenError::Protocol("the path is not a URI"))
}

/// The URI of a request that is for the other half itself.
pub(crate) fn path_uri(authority: &'static str, path: &str) -> Result<Uri, http::Error> {
    Uri::builder()
        .scheme("http")
        .authority(Authority::from_static(authority))
        .path_and_query(path)
        .build()
}

/// The URI of a CONNECT request.
pub(crate) fn authority_uri(authority: &str) -> Result<Uri, http::Error> {
    Uri::builder().authority(authority).build()
}

/// A request without headers.
pub(crate) fn plain_request(method: Method, uri: Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    request
}

pub(crate) fn request(
    method: Method,
    uri: Uri,
    candidates: Option<String>,
) -> Result<Request<()>, OpenError> {
    let mut request = plain_request(method, uri);
    if let Some(list) = candidates {
        let value = HeaderValue::try_from(list)
            .map_err(|_| OpenError::Protocol("the candidates are not a header"))?;
        request.headers_mut().insert(CANDIDATES.clone(), value);
    }
    Ok(request)
}

/// Reads a whole DNS message.
pub(crate) async fn read_message(body: &mut RecvStream) -> Result<Bytes, OpenError> {
    read_body(body, MAX_DNS).await
}

/// Reads a body of at most `most` bytes.
pub(crate) async fn read_body(body: &mut RecvStream, most: usize) -> Result<Bytes, OpenError> {
    let mut message = BytesMut::new();
    loop {
        match poll_fn(|cx| match body.poll_data(cx) {
            Poll::Ready(item) => Poll::Ready(item.transpose()),
            Poll::Pending => Poll::Pending,
        })
        .await
        {
            Ok(None) => return Ok(message.freeze()),
            Ok(Some(bytes)) => {
                let _ = body.flow_control().release_capacity(bytes.len());
                if message.len() + bytes.len() > most {
                    return Err(OpenError::TooLong(message.len() + bytes.len()));
                }
                message.extend_from_slice(&bytes);
            }
            Err(error) if error.is_reset() => {
                return Err(OpenError::Protocol("the message was reset"));
            }
            Err(_) => return Err(OpenError::LinkLost),
        }
    }
}
