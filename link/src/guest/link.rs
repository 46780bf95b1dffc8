//! The guest's link to its host.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{HeaderValue, Method, header};
use odyn_proto::wire::authority;
use odyn_proto::wire::service::{
    CREDENTIALS_PATH, CREDENTIALS_TYPE, KMS, MAX_CREDENTIALS, SERVICE,
};
use odyn_proto::{Endpoint, Identity, KmsEndpoint, Target};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::Tuning;
use crate::drain::{Guard, GuardKind, Phase, Trigger, Watch};
use crate::error::{OpenError, PeerMisbehaved};
use crate::feed::Feed;
use crate::feed::carry::carry;
use crate::flow::datagrams::Datagrams;
use crate::flow::early_data::EarlyData;
use crate::flow::io::LinkIo;
use crate::flow::lane::{GuestLanes, LaneAccess};
use crate::flow::lease::StreamLease;
use crate::flow::stream::{FlowSide, Stream};
use crate::flow::tcp::GuestSide;
use crate::guest::config::HostLinkConfig;
use crate::guest::drain;
use crate::guest::drain::Drained;
use crate::http2::message::{
    DNS_PATH, DNS_TYPE, MAX_DNS, authority_uri, host_uri, read_body, read_message, request_for,
};
use crate::pool::request::{OpenedRequest, RequestBody};
use crate::pool::state::LinkState;
use crate::pool::{FlowClass, PoolHandle};

/// A flow that the host has opened.
#[derive(Debug)]
pub struct OpenedFlow<F> {
    /// The flow.
    pub flow: F,
    /// The address that the host dialled, as it says.
    pub dialled: Option<SocketAddr>,
}

/// A guest's link to its host, on which it opens flows. Clones share the connections. When the last
/// clone is dropped, no more flows can be opened, and the open ones go on.
#[derive(Debug, Clone)]
pub struct HostLink {
    pool: PoolHandle,
    drain: Trigger,
    tuning: Arc<Tuning>,
    dns_timeout: Duration,
    /// The lanes of the flows.
    lanes: Option<Arc<GuestLanes>>,
}

impl HostLink {
    /// Starts to dial `endpoint`, for as long as a clone of the link lives.
    ///
    /// Must be called in a tokio runtime.
    pub fn new(endpoint: Endpoint, config: HostLinkConfig) -> Self {
        let tuning = Arc::new(config.tuning.clone());
        let drain = Trigger::default();
        Self {
            dns_timeout: config.dns_timeout,
            lanes: GuestLanes::new(endpoint.clone(), &tuning),
            pool: config.start(endpoint, drain.watch()),
            drain,
            tuning,
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

    /// Follows the drain of this guest.
    pub fn drain_watch(&self) -> Watch {
        self.drain.watch()
    }

    /// For a flow that is about to be opened: holds [`Phase::Flushing`] off.
    pub fn handover(&self) -> Guard {
        self.pool.drain.guard(GuardKind::Handover)
    }

    /// Runs a flow in the executor of a connection, from its beginning to its end. TCP flows that
    /// are opened and relayed there share the connection's polls and writes. The flow must not
    /// compute for long between two waits.
    ///
    /// Must be called in a tokio runtime.
    pub fn carry(&self, flow: impl Future<Output = ()> + Send + 'static) {
        self.pool.carry(FlowClass::Bulk, flow);
    }

    /// Opens a TCP flow, and waits for the host's answer. While the link is down it waits for
    /// [`HostLinkConfig::open_wait`]; it also waits while the link is full.
    ///
    /// # Errors
    /// When the host refuses, the link is or goes down, or the target can't be asked for.
    pub async fn connect_tcp(&self, target: &Target) -> Result<OpenedFlow<Stream>, OpenError> {
        self.open_tcp(target, RequestBody::Nothing).await
    }

    /// As [`HostLink::connect_tcp`], for an app that is already connected. The link reads the app's
    /// first bytes and sends them with the request. The caller gives the socket to
    /// [`relay`](crate::relay).
    ///
    /// # Errors
    /// As [`HostLink::connect_tcp`]. The bytes that were read are lost then. When the link is lost
    /// after they were sent, the host is not asked again, for the target may have them.
    pub async fn connect_tcp_for(
        &self,
        target: &Target,
        app: &TcpStream,
    ) -> Result<OpenedFlow<Stream>, OpenError> {
        // While the guest drains, it matters more that a request can be sent again.
        let with = if self.pool.drain.is_draining() {
            RequestBody::Nothing
        } else {
            RequestBody::App(EarlyData::new(app))
        };
        self.open_tcp(target, with).await
    }

    async fn open_tcp(
        &self,
        target: &Target,
        with: RequestBody<'_>,
    ) -> Result<OpenedFlow<Stream>, OpenError> {
        let (authority, candidates) = authority::write_connect(target)?;
        let uri = authority_uri(&authority)?;
        let request = request_for(Method::CONNECT, uri, candidates)?;
        let handover = self.handover();
        let opened = self.pool.request(FlowClass::Bulk, &request, with).await?;
        let dialled = opened.dialled()?;
        let lane = opened.lane(self.lanes.as_ref());
        let flow = self.app_stream(opened, handover, lane);
        Ok(OpenedFlow { flow, dialled })
    }

    /// Makes the stream of a flow that was opened for the app.
    pub(crate) fn app_stream(
        &self,
        mut opened: OpenedRequest,
        handover: Guard,
        lane: LaneAccess,
    ) -> Stream {
        let sent = std::mem::take(&mut opened.sent);
        let (send, recv, lease) = opened.into_parts();
        let side = Some(FlowSide::Guest(self.guest_side(handover, &lease)));
        let mut stream = Stream::new(
            send,
            recv,
            Arc::clone(&self.tuning),
            side,
            lane,
            Some(lease),
        );
        stream.began_with(sent);
        stream
    }

    /// Opens a UDP flow.
    ///
    /// # Errors
    /// As [`HostLink::connect_tcp`].
    pub async fn connect_udp(&self, target: &Target) -> Result<OpenedFlow<Datagrams>, OpenError> {
        let (path, candidates) = authority::write_udp_path(target)?;
        let mut request = request_for(Method::CONNECT, host_uri(&path)?, candidates)?;
        request
            .extensions_mut()
            .insert(Protocol::from_static("connect-udp"));
        // RFC 9297 section 3.4.
        request
            .headers_mut()
            .insert("capsule-protocol", HeaderValue::from_static("?1"));
        let handover = self.handover();
        let opened = self
            .pool
            .request(FlowClass::Quick, &request, RequestBody::Nothing)
            .await?;
        let dialled = opened.dialled()?;
        let (send, recv, lease) = opened.into_parts();
        let side = self.guest_side(handover, &lease);
        let flow = Datagrams::new(send, recv, self.tuning.send_buffer, Some((lease, side)));
        Ok(OpenedFlow { flow, dialled })
    }

    fn guest_side(&self, handover: Guard, lease: &StreamLease) -> GuestSide {
        GuestSide {
            drain: self.pool.drain.clone(),
            handover: Some(handover),
            flush_result: lease.flush_result(),
        }
    }

    /// Asks the host's resolver. `query` and the answer are DNS messages.
    ///
    /// # Errors
    /// When the host refuses or does not answer in [`HostLinkConfig::dns_timeout`], or the link is
    /// or goes down.
    pub async fn dns(&self, query: Bytes) -> Result<Bytes, OpenError> {
        if query.len() > MAX_DNS {
            return Err(OpenError::TooLong(query.len()));
        }
        let limit = self.dns_timeout;
        let asked = async {
            match self.ask_dns(query.clone()).await {
                // The link was lost within the answer. Before the answer, the pool has already sent
                // the request again.
                Err(OpenError::LinkLost) => self.ask_dns(query).await,
                done => done,
            }
        };
        timeout(limit, asked)
            .await
            .map_err(|_| OpenError::Timeout(limit))?
    }

    async fn ask_dns(&self, query: Bytes) -> Result<Bytes, OpenError> {
        let mut request = request_for(Method::POST, host_uri(DNS_PATH)?, None)?;
        let media_type = HeaderValue::from_static(DNS_TYPE);
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
        let mut opened = self
            .pool
            .request(FlowClass::Quick, &request, RequestBody::Message(query))
            .await?;
        let declared = opened.response.headers().get(header::CONTENT_TYPE);
        if declared.map(HeaderValue::as_bytes) != Some(DNS_TYPE.as_bytes()) {
            return Err(PeerMisbehaved::NotDns.into());
        }
        read_message(opened.response.body_mut()).await
    }

    /// Opens a TCP flow to an endpoint of KMS, which the host looks up.
    ///
    /// # Errors
    /// As [`HostLink::connect_tcp`]; refused as prohibited when the host does not take it for an
    /// endpoint of KMS.
    pub async fn connect_kms(&self, endpoint: &KmsEndpoint) -> Result<LinkIo, OpenError> {
        let uri = authority_uri(&endpoint.authority())?;
        let mut request = request_for(Method::CONNECT, uri, None)?;
        request
            .headers_mut()
            .insert(SERVICE, HeaderValue::from_static(KMS));
        let handover = self.handover();
        let opened = self
            .pool
            .request(FlowClass::Bulk, &request, RequestBody::Nothing)
            .await?;
        Ok(LinkIo::new(self.app_stream(
            opened,
            handover,
            LaneAccess::None,
        )))
    }

    /// Asks for the credentials of the host's machine, as JSON.
    ///
    /// # Errors
    /// When the host has none to give, or the link is or goes down.
    pub async fn credentials(&self) -> Result<Bytes, OpenError> {
        let request = request_for(Method::POST, host_uri(CREDENTIALS_PATH)?, None)?;
        let mut opened = self
            .pool
            .request(
                FlowClass::Quick,
                &request,
                RequestBody::Message(Bytes::new()),
            )
            .await?;
        let declared = opened.response.headers().get(header::CONTENT_TYPE);
        if declared.map(HeaderValue::as_bytes) != Some(CREDENTIALS_TYPE.as_bytes()) {
            return Err(PeerMisbehaved::NotJson.into());
        }
        read_body(opened.response.body_mut(), MAX_CREDENTIALS).await
    }

    /// Carries `feed` to the host under `name` until it has ended there. The name has lower-case
    /// letters, digits and `-`. The link stays open for the feed until [`HostLink::close`]: the
    /// feed should be [finished](Feed::finished) before.
    ///
    /// Must be called in a tokio runtime.
    pub fn feed(&self, guest: &Identity, name: &'static str, feed: &Feed) {
        tokio::spawn(carry(self.pool.clone(), guest.clone(), name, feed.clone()));
    }

    /// Begins [`Phase::Draining`], which takes at most `limit`: the app has ended.
    pub fn begin_drain(&self, limit: Duration) {
        drain::advance(&self.drain, Phase::Draining, limit);
    }

    /// Ends every flow without losing a byte: see [`Phase`]. To be called when the drain has begun.
    /// What is not delivered in its time, or when `force` is ready, is cut; that takes at most a
    /// second more. Connections stay.
    pub async fn drain(&self, force: impl Future<Output = ()>) -> Drained {
        drain::drain(&self.drain, &self.pool, force).await
    }

    /// Closes the connections: it opens no more streams, and waits up to `limit`. It waits until
    /// the open flows have ended and the host has read everything. Returns how many flows it cut
    /// then.
    pub async fn close(&self, limit: Duration) -> usize {
        let cut = self.pool.close(limit).await;
        drain::advance(&self.drain, Phase::Done, Duration::ZERO);
        cut
    }
}
