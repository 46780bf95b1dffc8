//! A link over a real Unix socket, with a host that dials loopback.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use odyn_link::drain::{Phase, Trigger};
use odyn_link::{
    Counters, End, FlowReport, Handler, HostLanes, HostLink, HostLinkConfig, LaneMode, LinkState,
    ListenOptions, Listener, OpenedFlow, Peer, Preamble, ServerConfig, Stream, read_preamble,
    relay, serve,
};
use odyn_proto::{Endpoint, Refusal, Target, TargetHost};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest that anything here may take: a hang fails instead of hanging.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Awaits, or fails the test.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

/// Dials what it is asked for. Port 1 is refused by the kernel, or by the switch in `refuse`.
pub struct Dialler {
    pub ended: mpsc::Sender<FlowReport>,
    pub refuse: Mutex<Option<Refusal>>,
    /// Answers nothing.
    pub stalled: AtomicBool,
    /// Requests that have come.
    pub asked: watch::Sender<usize>,
}

impl Dialler {
    async fn stall(&self) {
        self.asked.send_modify(|asked| *asked += 1);
        if self.stalled.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }
}

impl Handler for Dialler {
    async fn connect_tcp(
        &self,
        target: Target,
        _: &Peer,
    ) -> Result<(TcpStream, SocketAddr), Refusal> {
        self.stall().await;
        if let Some(refusal) = *self.refuse.lock().unwrap() {
            return Err(refusal);
        }
        let address = first(&target);
        let socket = TcpStream::connect(address)
            .await
            .map_err(|e| odyn_link::refusal_from_io(&e))?;
        Ok((socket, address))
    }

    async fn connect_udp(
        &self,
        target: Target,
        _: &Peer,
    ) -> Result<(UdpSocket, SocketAddr), Refusal> {
        self.stall().await;
        let address = first(&target);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket
            .connect(address)
            .await
            .map_err(|e| odyn_link::refusal_from_io(&e))?;
        Ok((socket, address))
    }

    /// Knows one name.
    async fn connect_kms(
        &self,
        endpoint: odyn_proto::KmsEndpoint,
        _: &Peer,
    ) -> Result<(TcpStream, SocketAddr), Refusal> {
        if endpoint.name().as_str() != "kms.test" {
            return Err(Refusal::Prohibited);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, endpoint.port().get()));
        let socket = TcpStream::connect(address).await;
        Ok((socket.map_err(|e| odyn_link::refusal_from_io(&e))?, address))
    }

    async fn credentials(&self, _: &Peer) -> Result<Bytes, Refusal> {
        match *self.refuse.lock().unwrap() {
            Some(refusal) => Err(refusal),
            None => Ok(Bytes::from_static(b"{}")),
        }
    }

    async fn dns(&self, query: Bytes, _: &Peer) -> Result<Bytes, Refusal> {
        self.stall().await;
        match query.first() {
            Some(0) => Err(Refusal::DnsTimeout),
            Some(1) => std::future::pending().await,
            _ => Ok(query.iter().rev().copied().collect()),
        }
    }

    fn ended(&self, report: &FlowReport) {
        let _ = self.ended.try_send(report.clone());
    }
}

/// Cuts what is open when the time of a drain is over.
pub async fn force_in_time(drain: Trigger) {
    drain.watch().out_of_time().await;
    drain.advance(Phase::Forced, Instant::now(), LIMIT);
}

fn first(target: &Target) -> SocketAddr {
    match &target.host {
        TargetHost::Addresses(list) => SocketAddr::new(list[0], target.port),
        TargetHost::HostLoopback => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), target.port),
    }
}

/// The host.
pub struct Host {
    pub drain: Trigger,
    /// Drops its connections, as a killed process does.
    pub kill: CancellationToken,
    pub tasks: TaskTracker,
    pub lanes: Arc<HostLanes>,
    pub ended: mpsc::Receiver<FlowReport>,
    pub dialler: Arc<Dialler>,
}

impl Host {
    pub fn start(endpoint: &Endpoint, mut config: ServerConfig) -> Self {
        config.tuning.lanes = lanes();
        Self::with(endpoint, config, false)
    }

    /// One that answers nothing.
    pub fn stalled(endpoint: &Endpoint) -> Self {
        Self::with(endpoint, ServerConfig::default(), true)
    }

    fn with(endpoint: &Endpoint, mut config: ServerConfig, stalled: bool) -> Self {
        let lanes = HostLanes::new(&config.tuning);
        config.lanes = Some(Arc::clone(&lanes));
        let listener = Listener::bind(endpoint, ListenOptions::default()).unwrap();
        let (ended, reports) = mpsc::channel(100_000);
        let host = Self {
            drain: Trigger::default(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
            lanes: Arc::clone(&lanes),
            ended: reports,
            dialler: Arc::new(Dialler {
                ended,
                refuse: Mutex::new(None),
                stalled: AtomicBool::new(stalled),
                asked: watch::Sender::new(0),
            }),
        };
        tokio::spawn(force_in_time(host.drain.clone()));
        let (drain, kill) = (host.drain.watch(), host.kill.clone());
        let (tasks, dialler) = (host.tasks.clone(), Arc::clone(&host.dialler));
        host.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept(&config.tuning) => accepted,
                    () = drain.draining() => return,
                    () = kill.cancelled() => return,
                };
                let (transport, peer) = accepted.unwrap();
                let (dialler, config) = (Arc::clone(&dialler), config.clone());
                let (drain, lanes) = (drain.clone(), Arc::clone(&lanes));
                let serve = async move {
                    let tuning = config.tuning.clone();
                    match read_preamble(transport, tuning.handshake_timeout).await? {
                        Preamble::Forward(transport) => {
                            serve(transport, peer, dialler, config, drain).await
                        }
                        Preamble::Lane(key, transport) => {
                            lanes.serve(transport, key, &tuning).await
                        }
                        Preamble::Reversed(_) => Ok(()),
                    }
                };
                let kill = kill.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        result = serve => { let _ = result; }
                        () = kill.cancelled() => {}
                    }
                });
            }
        });
        host.tasks.close();
        host
    }

    /// Tells it to stop, and to cut after `limit` what is still open.
    pub fn stop(&self, limit: Duration) {
        self.drain.advance(Phase::Draining, Instant::now(), limit);
    }

    /// Waits until so many requests have come.
    pub async fn asked(&self, count: usize) {
        let mut asked = self.dialler.asked.subscribe();
        soon("the requests", asked.wait_for(|asked| *asked == count))
            .await
            .unwrap();
    }

    pub async fn killed(self) {
        self.kill.cancel();
        soon("the host's end", self.tasks.wait()).await;
    }
}

/// When flows move to lanes: `ODYN_TEST_LANES`.
pub fn lanes() -> LaneMode {
    let asked = std::env::var("ODYN_TEST_LANES").ok();
    asked.map_or(LaneMode::Auto, |mode| mode.parse().unwrap())
}

/// Both halves.
pub struct World {
    pub dir: TempDir,
    pub endpoint: Endpoint,
    pub host: Host,
    pub client: HostLink,
}

impl World {
    pub async fn new() -> Self {
        Self::with(HostLinkConfig::default(), ServerConfig::default()).await
    }

    pub async fn with(mut client: HostLinkConfig, mut server: ServerConfig) -> Self {
        client.tuning.lanes = lanes();
        server.tuning.lanes = lanes();
        Self::exactly(client, server).await
    }

    /// Whatever `ODYN_TEST_LANES` says.
    pub async fn exactly(client: HostLinkConfig, server: ServerConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix {
            path: socket_path(&dir),
        };
        let host = Host::with(&endpoint, server, false);
        let client = HostLink::new(endpoint.clone(), client);
        up(&client).await;
        Self {
            dir,
            endpoint,
            host,
            client,
        }
    }

    /// Lanes that the host has.
    pub fn lanes_in_use(&self) -> usize {
        self.host.lanes.count()
    }

    /// An app's socket whose other end is relayed through the link to `server`.
    pub async fn connect(&self, server: SocketAddr) -> App {
        App::connect(&self.client, server).await
    }
}

pub fn socket_path(dir: &TempDir) -> PathBuf {
    dir.path().join("link.sock")
}

pub async fn up(client: &HostLink) {
    let mut state = client.state();
    soon("the link", state.wait_for(|s| *s == LinkState::Up))
        .await
        .unwrap();
}

pub async fn down(client: &HostLink) {
    let mut state = client.state();
    soon(
        "the end of the link",
        state.wait_for(|s| *s != LinkState::Up),
    )
    .await
    .unwrap();
}

/// A program's connection through the link.
pub struct App {
    pub tcp: TcpStream,
    pub relay: JoinHandle<End>,
    pub counters: Arc<Counters>,
    pub dialled: Option<SocketAddr>,
}

impl App {
    pub async fn connect(client: &HostLink, server: SocketAddr) -> Self {
        let target = Target::address(server.ip(), server.port());
        let opened = soon("opening", client.connect_tcp(&target)).await.unwrap();
        Self::relayed(opened).await
    }

    pub async fn relayed(opened: OpenedFlow<Stream>) -> Self {
        let (tcp, inner) = pair().await;
        let counters = Arc::new(Counters::default());
        let relay = tokio::spawn(relay(inner, opened.flow, Arc::clone(&counters)));
        Self {
            tcp,
            relay,
            counters,
            dialled: opened.dialled,
        }
    }
}

/// Two ends of a TCP connection over loopback.
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

pub async fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// Whether a read or write failed as it does after a RST.
pub fn is_reset<T>(result: &io::Result<T>) -> bool {
    matches!(
        result,
        Err(error) if matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    )
}

/// A host that speaks HTTP/2 and answers each request as `answer` likes.
pub async fn bad_host<F>(answer: F) -> (tempfile::TempDir, HostLink)
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) + Send + Sync + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(&dir);
    let listener = UnixListener::bind(&path).unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let mut connection = builder
                    .enable_connect_protocol()
                    .handshake(socket)
                    .await
                    .unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    answer(request, respond);
                }
            });
        }
    });
    let mut config = HostLinkConfig::default();
    config.connections = 1;
    let client = HostLink::new(Endpoint::Unix { path }, config);
    up(&client).await;
    (dir, client)
}

/// Keeps a stream open: dropping it would throw away what it still has to send.
pub fn hold(send: h2::SendStream<Bytes>) {
    tokio::spawn(async move {
        let _send = send;
        std::future::pending::<()>().await;
    });
}

/// Gives back what it gets, on any number of connections.
pub async fn echo_server() -> SocketAddr {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                    let _ = write.shutdown().await;
                }
            });
        }
    });
    address
}
