//! A layer between the relay and the app's socket: it sees and holds back bytes, and may cut the flow.
#![allow(missing_docs)]

mod common;

use std::io;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use odyn_link::{Counters, End, HostLinkConfig, LaneMode, LocalStream, ServerConfig, relay};
use odyn_proto::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use common::{World, is_reset, listen, pair, soon};

/// The layer judges a flow by so many bytes of the peer.
const FIRST: usize = 4;

/// What a peer must not begin with.
const REFUSED: &[u8; FIRST] = b"EVIL";

/// Holds the peer's first bytes back until it has all of them.
struct Inspected<L> {
    below: L,
    first: Vec<u8>,
    /// Of them, what was passed on.
    passed: usize,
    /// Bytes that the app wrote.
    from_app: Arc<AtomicU64>,
}

impl<L: LocalStream> Inspected<L> {
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.passed < self.first.len() {
            let rest = [IoSlice::new(&self.first[self.passed..])];
            self.passed += ready!(self.below.poll_write(cx, &rest))?;
        }
        Poll::Ready(Ok(()))
    }

    fn is_judged(&self) -> bool {
        self.first.len() == FIRST
    }

    fn judge(&mut self) -> io::Result<()> {
        if self.first != REFUSED {
            return Ok(());
        }
        self.below.reset_on_close();
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

impl<L: LocalStream> LocalStream for Inspected<L> {
    fn prepare(&mut self) {
        self.below.prepare();
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.judge()?;
        self.below.poll_read_ready(cx)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.judge()?;
        let before = buffer.filled().len();
        ready!(self.below.poll_read(cx, buffer))?;
        let count = buffer.filled().len() - before;
        self.from_app.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_judged() {
            ready!(self.poll_first(cx))?;
            return self.below.poll_write(cx, chunks);
        }
        let chunk = chunks.first().map_or(&[][..], |chunk| chunk);
        let count = chunk.len().min(FIRST - self.first.len());
        self.first.extend_from_slice(&chunk[..count]);
        self.judge()?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_judged() {
            ready!(self.poll_first(cx))?;
        }
        self.below.poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_first(cx))?;
        self.below.poll_shutdown(cx)
    }

    fn app_has_ended(&mut self) {
        self.below.app_has_ended();
    }

    fn reset_on_close(&mut self) {
        self.below.reset_on_close();
    }

    fn close_in_order(&mut self) {
        self.below.close_in_order();
    }

    fn has_failed(&self) -> bool {
        self.below.has_failed()
    }

    fn is_connected(&self) -> bool {
        self.below.is_connected()
    }

    fn unacknowledged(&self) -> usize {
        self.below.unacknowledged()
    }

    fn rehome(mut self) -> io::Result<Self> {
        self.below = self.below.rehome()?;
        Ok(self)
    }
}

struct InspectedFlow {
    world: World,
    app: TcpStream,
    server: TcpStream,
    relay: JoinHandle<End>,
    counters: Arc<Counters>,
    from_app: Arc<AtomicU64>,
}

async fn flow(lanes: LaneMode) -> InspectedFlow {
    let mut client = HostLinkConfig::default();
    client.tuning.lanes = lanes;
    let world = World::exactly(client, ServerConfig::default()).await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let target = Target::address(address.ip(), address.port());
    let opened = soon("opening", world.client.connect_tcp(&target)).await;
    let (server, _) = soon("accept", listener.accept()).await.unwrap();
    let (app, below) = pair().await;
    let from_app = Arc::new(AtomicU64::new(0));
    let counters = Arc::new(Counters::default());
    let layer = Inspected {
        below,
        first: Vec::new(),
        passed: 0,
        from_app: Arc::clone(&from_app),
    };
    let relay = tokio::spawn(relay(layer, opened.unwrap().flow, Arc::clone(&counters)));
    InspectedFlow {
        world,
        app,
        server,
        relay,
        counters,
        from_app,
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect()
}

/// Bulk, so that flows with lanes end up in the threads for those.
const UP: usize = 6 * 1024 * 1024 + 1;
const DOWN: usize = 5 * 1024 * 1024 + 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_sees_every_byte_and_changes_no_end() {
    for lanes in [LaneMode::Never, LaneMode::Auto, LaneMode::Always] {
        let flow = flow(lanes).await;
        let (mut read, mut write) = flow.app.into_split();
        let (mut server_read, mut server_write) = flow.server.into_split();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        soon("both directions", async {
            tokio::join!(
                async {
                    write.write_all(&bytes(UP)).await.unwrap();
                    write.shutdown().await.unwrap();
                },
                async {
                    // Fewer than the layer wants to see.
                    server_write.write_all(&bytes(DOWN)[..2]).await.unwrap();
                    server_read.read_to_end(&mut up).await.unwrap();
                    // The other direction goes on behind the end of this one.
                    server_write.write_all(&bytes(DOWN)[2..]).await.unwrap();
                    server_write.shutdown().await.unwrap();
                },
                async { read.read_to_end(&mut down).await.unwrap() },
            )
        })
        .await;
        assert!(up == bytes(UP) && down == bytes(DOWN), "{lanes}");
        assert_eq!(soon("end", flow.relay).await.unwrap(), End::Closed);
        assert_eq!(flow.counters.get(), (UP as u64, DOWN as u64));
        assert_eq!(flow.from_app.load(Ordering::Relaxed), UP as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_layer_holds_back_comes_before_the_end() {
    let mut flow = flow(LaneMode::Auto).await;
    flow.server.write_all(b"hi").await.unwrap();
    flow.server.shutdown().await.unwrap();
    let mut got = String::new();
    soon("the end", flow.app.read_to_string(&mut got))
        .await
        .unwrap();
    assert_eq!(got, "hi");
    drop(flow.app);
    assert_eq!(soon("end", flow.relay).await.unwrap(), End::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_a_layer_refuses_is_reset_and_the_app_gets_nothing_of_it() {
    for lanes in [LaneMode::Never, LaneMode::Always] {
        let mut flow = flow(lanes).await;
        flow.app.write_all(b"question").await.unwrap();
        soon("question", flow.server.read_exact(&mut [0; 8]))
            .await
            .unwrap();
        flow.server.write_all(b"EV").await.unwrap();
        flow.server.write_all(b"IL words").await.unwrap();
        let read = soon("reset", flow.server.read(&mut [0; 1])).await;
        assert!(is_reset(&read), "{read:?}");
        assert_eq!(soon("end", flow.relay).await.unwrap(), End::ResetBySocket);
        let read = soon("the app's end", flow.app.read(&mut [0; 1])).await;
        assert!(is_reset(&read), "{read:?}");
        drop(flow.world);
    }
}
