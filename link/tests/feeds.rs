//! Feeds: nothing is lost, nothing comes twice, and memory is bounded on both sides.
#![allow(missing_docs)]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use odyn_link::drain::{Phase, Trigger};
use odyn_link::{
    Feed, FeedSink, Handler, HostLink, HostLinkConfig, ListenOptions, Listener, Peer, ServerConfig,
    now, serve,
};
use odyn_proto::wire::feed::{FeedRecord, Opening};
use odyn_proto::{Endpoint, GuestName, Identity, Refusal, RunId, Target};
use tempfile::TempDir;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use common::{LIMIT, down, soon, up};

/// What the host has of one feed.
#[derive(Default)]
struct Page {
    next: u64,
    bytes: Vec<u8>,
    records: usize,
    ended: bool,
}

/// Keeps what the feeds say; outlives its hosts, as a file does.
struct Notebook {
    pages: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Page>>>>,
    /// A permit for each record that may be written.
    gate: Arc<Semaphore>,
}

impl Notebook {
    fn new(gate: usize) -> Arc<Self> {
        Arc::new(Self {
            pages: Mutex::default(),
            gate: Arc::new(Semaphore::new(gate)),
        })
    }

    fn page(&self, name: &str) -> Arc<tokio::sync::Mutex<Page>> {
        Arc::clone(self.pages.lock().unwrap().entry(name.into()).or_default())
    }
}

struct Pen {
    page: OwnedMutexGuard<Page>,
    gate: Arc<Semaphore>,
}

impl FeedSink for Pen {
    fn next(&self) -> u64 {
        self.page.next
    }

    fn write(&mut self, records: Vec<FeedRecord>) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(async move {
            let count = records.len() as u32;
            let permits = self.gate.acquire_many(count).await.unwrap();
            permits.forget();
            for record in records {
                self.page.bytes.extend_from_slice(&record.bytes);
                self.page.records += 1;
                self.page.next += 1;
            }
            Ok(())
        })
    }

    fn end(&mut self) -> BoxFuture<'_, Result<(), Refusal>> {
        self.page.ended = true;
        Box::pin(async { Ok(()) })
    }
}

impl Handler for Notebook {
    async fn connect_tcp(
        &self,
        target: Target,
        _: &Peer,
    ) -> Result<(TcpStream, SocketAddr), Refusal> {
        let address = SocketAddr::from(([127, 0, 0, 1], target.port));
        let socket = TcpStream::connect(address).await;
        Ok((
            socket.map_err(|error| odyn_link::refusal_from_io(&error))?,
            address,
        ))
    }

    async fn connect_udp(&self, _: Target, _: &Peer) -> Result<(UdpSocket, SocketAddr), Refusal> {
        Err(Refusal::Prohibited)
    }

    async fn dns(&self, query: Bytes, _: &Peer) -> Result<Bytes, Refusal> {
        Ok(query)
    }

    async fn feed(&self, opening: Opening, _: &Peer) -> Result<Box<dyn FeedSink>, Refusal> {
        let mut page = self.page(&opening.name).lock_owned().await;
        page.next = page.next.max(opening.first);
        Ok(Box::new(Pen {
            page,
            gate: Arc::clone(&self.gate),
        }))
    }
}

struct Host {
    drain: Trigger,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Host {
    fn start(endpoint: &Endpoint, notebook: &Arc<Notebook>) -> Self {
        let listener = Listener::bind(endpoint, ListenOptions::default()).unwrap();
        let (drain, kill) = (Trigger::default(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let config = ServerConfig::default();
        let host = Self {
            drain: drain.clone(),
            kill: kill.clone(),
            tasks: tasks.clone(),
        };
        let notebook = Arc::clone(notebook);
        tokio::spawn(common::force_in_time(drain.clone()));
        let drain = drain.watch();
        tasks.clone().spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept(&config.tuning) => accepted,
                    () = drain.draining() => return,
                    () = kill.cancelled() => return,
                };
                let (transport, peer) = accepted.unwrap();
                let notebook = Arc::clone(&notebook);
                let serve = serve(transport, peer, notebook, config.clone(), drain.clone());
                let kill = kill.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        _ = serve => {}
                        () = kill.cancelled() => {}
                    }
                });
            }
        });
        host.tasks.close();
        host
    }

    async fn killed(self) {
        self.kill.cancel();
        soon("the host's end", self.tasks.wait()).await;
    }
}

struct World {
    _dir: TempDir,
    endpoint: Endpoint,
    notebook: Arc<Notebook>,
    client: HostLink,
}

impl World {
    fn new(gate: usize) -> (Self, Host) {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix {
            path: common::socket_path(&dir),
        };
        let notebook = Notebook::new(gate);
        let host = Host::start(&endpoint, &notebook);
        let client = HostLink::new(endpoint.clone(), HostLinkConfig::default());
        let world = Self {
            _dir: dir,
            endpoint,
            notebook,
            client,
        };
        (world, host)
    }

    fn feed(&self, name: &'static str, limit: usize) -> Feed {
        let feed = Feed::new(limit);
        self.client.feed(&guest(), name, &feed);
        feed
    }

    async fn text(&self, name: &str) -> String {
        let page = self.notebook.page(name);
        let page = page.lock().await;
        String::from_utf8(page.bytes.clone()).unwrap()
    }
}

fn guest() -> Identity {
    Identity {
        name: GuestName::nearest("test"),
        run: RunId::new([7; 16]),
    }
}

fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

async fn print(feed: &Feed, range: std::ops::Range<u32>) {
    for number in range {
        let taken = feed.write(now(), Bytes::from(format!("{number}\n"))).await;
        assert!(taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_arrive_whole_and_end() {
    let (world, _host) = World::new(Semaphore::MAX_PERMITS);
    let out = world.feed("stdout", 1 << 20);
    let silent = world.feed("stderr", 1 << 20);
    silent.end();
    let noise: Vec<u8> = (0..10_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let whole = Bytes::from(noise.clone());
    for part in whole.chunks(200_000) {
        assert!(out.write(now(), whole.slice_ref(part)).await);
    }
    out.end();
    for feed in [&out, &silent] {
        soon("the end", feed.finished()).await;
    }
    let page = world.notebook.page("stdout");
    let page = page.lock().await;
    assert!(page.bytes == noise && page.ended);
    assert!(world.notebook.page("stderr").lock().await.ended);
    assert_eq!(world.client.flows(), 0, "a feed is no flow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_loses_no_record_and_repeats_none() {
    let (world, mut host) = World::new(Semaphore::MAX_PERMITS);
    let feed = world.feed("stdout", 10_000);
    for round in 0..20 {
        // Killed with records in every buffer: none is waited for.
        print(&feed, round * 1000..(round + 1) * 1000).await;
        host.killed().await;
        host = Host::start(&world.endpoint, &world.notebook);
    }
    feed.end();
    soon("the end", feed.finished()).await;
    assert!(world.text("stdout").await == numbers(0..20_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_does_not_write_stops_its_feed_and_no_other() {
    const LIMIT: usize = 10_000;
    let (world, _host) = World::new(0);
    let feed = world.feed("stdout", LIMIT);
    let writer = tokio::spawn({
        let feed = feed.clone();
        async move {
            print(&feed, 0..5000).await;
            feed.end();
        }
    });
    soon("a full feed", async {
        while feed.try_write(now(), &Bytes::from_static(&[b'x'; 0])) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let pending = feed.pending();
    assert!(pending.bytes <= LIMIT && pending.records < LIMIT / 64 + 2);
    assert!(!writer.is_finished());
    // Everything else on the link goes on.
    let answer = soon("dns", world.client.dns(Bytes::from_static(b"?"))).await;
    assert_eq!(answer.unwrap(), "?");
    world.notebook.gate.add_permits(100_000);
    soon("the end", feed.finished()).await;
    assert!(world.text("stdout").await == numbers(0..5000));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_it_is_written() {
    let (world, host) = World::new(3);
    let feed = world.feed("status", 1 << 20);
    print(&feed, 0..1).await;
    soon("the first", feed.delivered()).await;
    print(&feed, 1..3).await;
    soon("the next two", feed.delivered()).await;
    print(&feed, 3..10).await;
    // The sink is in the middle of its write when the connection goes.
    soon("the records at the host", async {
        while world.notebook.page("status").try_lock().is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    host.killed().await;
    assert_eq!(feed.pending().records, 7);
    world.notebook.gate.add_permits(100);
    let _host = Host::start(&world.endpoint, &world.notebook);
    feed.end();
    soon("the end", feed.finished()).await;
    assert!(world.text("status").await == numbers(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_drains_takes_records_until_its_last_flow_has_ended() {
    let (world, host) = World::new(Semaphore::MAX_PERMITS);
    up(&world.client).await;
    let feed = world.feed("log", 1 << 20);
    let server = common::listen().await;
    let mut app = common::App::connect(&world.client, server.local_addr().unwrap()).await;
    let (accepted, _) = soon("accept", server.accept()).await.unwrap();
    print(&feed, 0..10).await;
    soon("the first", feed.delivered()).await;
    host.drain.advance(Phase::Draining, Instant::now(), LIMIT);
    down(&world.client).await;
    print(&feed, 10..20).await;
    soon("records while it drains", feed.delivered()).await;
    tokio::io::AsyncWriteExt::shutdown(&mut app.tcp)
        .await
        .unwrap();
    drop((app, accepted));
    soon("the host's end", host.tasks.wait()).await;
    print(&feed, 20..30).await;
    let _next = Host::start(&world.endpoint, &world.notebook);
    feed.end();
    soon("the end", feed.finished()).await;
    assert!(world.text("log").await == numbers(0..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_host_has_acknowledged_is_not_asked_for_again() {
    let (world, host) = World::new(Semaphore::MAX_PERMITS);
    let feed = world.feed("stdout", 1 << 20);
    print(&feed, 0..10).await;
    soon("the first", feed.delivered()).await;
    host.killed().await;
    print(&feed, 10..20).await;
    let fresh = Notebook::new(Semaphore::MAX_PERMITS);
    let _host = Host::start(&world.endpoint, &fresh);
    feed.end();
    soon("the end", feed.finished()).await;
    let page = fresh.page("stdout");
    let page = page.lock().await;
    assert_eq!(String::from_utf8_lossy(&page.bytes), numbers(10..20));
    assert_eq!(page.next, 20);
}

/// A host that answers each request for a feed with these bytes, saying that it wants `next`.
async fn bad_host(endpoint: &Endpoint, next: &'static str, acks: Vec<u8>) -> Arc<Semaphore> {
    let Endpoint::Unix { path } = endpoint else {
        panic!()
    };
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    let asked = Arc::new(Semaphore::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acks, count) = (Bytes::from(acks.clone()), Arc::clone(&count));
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let builder = builder.enable_connect_protocol();
                let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else {
                    return;
                };
                let mut held = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let mut response = http::Response::new(());
                    let next = http::HeaderValue::from_static(next);
                    response.headers_mut().insert("odyn-next", next);
                    if let Ok(mut send) = respond.send_response(response, false) {
                        let _ = send.send_data(acks.clone(), false);
                        held.push((request, send));
                    }
                    count.add_permits(1);
                }
            });
        }
    });
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lies_about_what_it_has_written_is_asked_again() {
    const LIMIT: usize = 100_000;
    let big = u64::MAX.to_be_bytes().to_vec();
    let back = [10u64.to_be_bytes(), 3u64.to_be_bytes()].concat();
    let noise: Vec<u8> = (0..1000u32).map(|i| ((i * 37) >> 2) as u8 | 0x80).collect();
    for (next, acks) in [
        // Beyond what was sent; going back; garbage; half a number and silence.
        ("0", big),
        ("0", back),
        ("0", noise),
        ("18446744073709551615", Vec::new()),
        ("", Vec::new()),
        ("-1", Vec::new()),
        ("99999999999999999999", Vec::new()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix {
            path: common::socket_path(&dir),
        };
        let asked = bad_host(&endpoint, next, acks.clone()).await;
        let client = HostLink::new(endpoint, HostLinkConfig::default());
        let feed = Feed::new(LIMIT);
        client.feed(&guest(), "stdout", &feed);
        for _ in 0..10 {
            assert!(feed.try_write(now(), &Bytes::from_static(b"record\n")));
        }
        let again = soon("it asks again", asked.acquire_many(3)).await.unwrap();
        again.forget();
        assert!(feed.pending().bytes <= LIMIT);
        assert!(
            feed.try_write(now(), &Bytes::from_static(b"more\n")),
            "{next} {acks:?}"
        );
        feed.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_breaks_the_format_is_cut_and_harms_no_other() {
    let (world, _host) = World::new(Semaphore::MAX_PERMITS);
    let Endpoint::Unix { path } = &world.endpoint else {
        panic!()
    };
    let run = "07".repeat(16);
    let last = u64::MAX.to_string();
    let record = [&[0, 0, 0, 1][..], &[0; 8], b"x"].concat();
    for (path_of, first, body, ok) in [
        ("/feed/stdout", "0", vec![0xff; 100], true),
        ("/feed/stdout", "0", record[..5].to_vec(), true),
        (
            "/feed/last",
            &last,
            [record.clone(), record.clone()].concat(),
            true,
        ),
        ("/feed/UPPER", "0", Vec::new(), false),
        ("/feed/stdout", "minus", Vec::new(), false),
    ] {
        let socket = tokio::net::UnixStream::connect(path).await.unwrap();
        let (requests, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://enclaver-outer{path_of}"))
            .header("odyn-guest", "wild")
            .header("odyn-run", &run)
            .header("odyn-first", first)
            .body(())
            .unwrap();
        let mut requests = requests.ready().await.unwrap();
        let (response, mut send) = requests.send_request(request, false).unwrap();
        let response = soon("an answer", response).await.unwrap();
        assert_eq!(
            response.status() == http::StatusCode::OK,
            ok,
            "{path_of} {first}"
        );
        if ok {
            send.send_data(Bytes::from(body), true).unwrap();
            let mut answer = response.into_body();
            let cut = soon("the end", async {
                loop {
                    match answer.data().await {
                        Some(Ok(_)) => {}
                        end => return matches!(end, Some(Err(_))),
                    }
                }
            });
            assert!(cut.await, "{path_of} {first} was taken");
        }
    }
    let feed = world.feed("stderr", 1 << 20);
    print(&feed, 0..10).await;
    feed.end();
    soon("the end", feed.finished()).await;
    assert!(world.text("stderr").await == numbers(0..10));
}
