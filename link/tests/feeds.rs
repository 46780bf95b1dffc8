//! Feeds: nothing is lost, nothing comes twice, and memory is bounded on both sides.
#![allow(missing_docs)]

mod common;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use common::{down, soon, up};
use futures::future::BoxFuture;
use odyn_link::{
    Client, ClientConfig, Endpoint, Feed, FeedSink, GuestName, Handler, Identity, ListenOptions,
    Listener, Opening, Peer, Record, Refusal, RunId, ServerConfig, Target, now, serve,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::{OwnedMutexGuard, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

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

    fn write(&mut self, records: Vec<Record>) -> BoxFuture<'_, Result<(), Refusal>> {
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
        Ok((socket.map_err(|error| Refusal::from_io(&error))?, address))
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
    shutdown: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Host {
    fn start(endpoint: &Endpoint, notebook: &Arc<Notebook>) -> Self {
        let listener = Listener::bind(endpoint, ListenOptions::default()).unwrap();
        let (shutdown, kill) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let config = ServerConfig::default();
        let host = Self {
            shutdown: shutdown.clone(),
            kill: kill.clone(),
            tasks: tasks.clone(),
        };
        let notebook = Arc::clone(notebook);
        tasks.clone().spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept(&config.tuning) => accepted,
                    () = shutdown.cancelled() => return,
                    () = kill.cancelled() => return,
                };
                let (transport, peer) = accepted.unwrap();
                let notebook = Arc::clone(&notebook);
                let serve = serve(transport, peer, notebook, config.clone(), shutdown.clone());
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
    client: Client,
}

impl World {
    fn new(gate: usize) -> (Self, Host) {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix {
            path: common::socket_path(&dir),
        };
        let notebook = Notebook::new(gate);
        let host = Host::start(&endpoint, &notebook);
        let client = Client::new(endpoint.clone(), ClientConfig::default());
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
    host.shutdown.cancel();
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
