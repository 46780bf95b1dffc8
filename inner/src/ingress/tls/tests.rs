//! Polls a session as the relay does, between a client in memory and an app's socket.

use std::future::poll_fn;
use std::io;
use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use odyn_link::LocalStream;
use pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::ingress::app::AppPort;
use crate::ingress::ports::Port;
use crate::ingress::proxy_header::ClientHeader;
use crate::ingress::tls::app::TlsApp;
use crate::ingress::tls::report::{TlsFailure, TlsReport};

const LONG: Duration = Duration::from_secs(60);

/// A client and its session. This test is the link between the two.
struct World {
    app: TlsApp,
    report: Arc<TlsReport>,
    client: ClientConnection,
    /// Ciphertext of the client that the session has not taken yet.
    sent: Vec<u8>,
    /// Plaintext that the client has received.
    got: Vec<u8>,
    /// How the direction from the app has ended.
    ended: Option<io::Result<()>>,
    /// The session takes no more.
    failed: bool,
}

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let issued = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
    let certificate = issued.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

async fn listen() -> (TcpListener, NonZeroU16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, NonZeroU16::new(port).unwrap())
}

impl World {
    fn new(port: NonZeroU16, limit: Duration) -> Self {
        let (server, client) = configs();
        let port = Port {
            app: AppPort::new(port),
            wait_timeout: LONG,
            tls: None,
            proxy_protocol: None,
        };
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
        let header = ClientHeader {
            version: None,
            client: any,
            local: any,
        };
        let (app, report) = TlsApp::new(server, limit, Arc::new(port), header).unwrap();
        let name = "shop.example".try_into().unwrap();
        Self {
            app,
            report,
            client: ClientConnection::new(client, name).unwrap(),
            sent: Vec::new(),
            got: Vec::new(),
            ended: None,
            failed: false,
        }
    }

    /// A session after its handshake, and the app's end.
    async fn open() -> (Self, TcpStream) {
        let (listener, port) = listen().await;
        let mut world = Self::new(port, LONG);
        let accepted = async { listener.accept().await.unwrap().0 };
        let app = world.during(accepted).await;
        assert!(world.report.is_connected());
        (world, app)
    }

    /// Carries bytes until `work` is done.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = timeout(LONG, work) => done.expect("in time"),
            never = poll_fn(|cx| self.poll(cx)) => match never {},
        }
    }

    async fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let waiting = poll_fn(|cx| {
            let _ = self.poll(cx);
            if done(self) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        timeout(LONG, waiting).await.expect("in time");
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<std::convert::Infallible> {
        loop {
            let written = self.poll_write(cx);
            let read = self.poll_read(cx);
            if !written && !read {
                return Poll::Pending;
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        self.client.write_tls(&mut self.sent).unwrap();
        if self.failed {
            return false;
        }
        if let Poll::Ready(Err(_)) = self.app.poll_flush(cx) {
            self.failed = true;
            return true;
        }
        match self.app.poll_write(cx, &[IoSlice::new(&self.sent)]) {
            Poll::Ready(Ok(count)) => {
                self.sent.drain(..count);
                count > 0
            }
            Poll::Ready(Err(_)) => {
                self.failed = true;
                true
            }
            Poll::Pending => false,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ended.is_some() || self.app.poll_read_ready(cx).is_pending() {
            return false;
        }
        let mut space = [0; 5000];
        let mut buffer = ReadBuf::new(&mut space);
        let Poll::Ready(read) = self.app.poll_read(cx, &mut buffer) else {
            return false;
        };
        let mut bytes = buffer.filled();
        if read.is_err() || bytes.is_empty() {
            self.ended = Some(read);
            return true;
        }
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            // An alert is an error here: a test that expects one checks for it.
            let _ = self.client.process_new_packets();
            let _ = self.client.reader().read_to_end(&mut self.got);
        }
        true
    }

    fn was_closed_in_order(&mut self) -> bool {
        matches!(self.client.reader().read(&mut [0; 1]), Ok(0))
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        let shutdown = poll_fn(|cx| self.app.poll_shutdown(cx));
        timeout(LONG, shutdown).await.expect("in time")
    }
}

async fn is_reset(socket: &mut TcpStream) -> bool {
    let read = timeout(LONG, socket.read(&mut [0; 1])).await;
    matches!(read.expect("in time"), Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (mut world, mut app) = World::open().await;
    world.client.writer().write_all(b"question").unwrap();
    world.client.send_close_notify();
    let mut got = Vec::new();
    world.during(app.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"question");
    assert!(world.shutdown().await.is_ok());
    let answer = vec![7; 100_000];
    world.during(app.write_all(&answer)).await.unwrap();
    drop(app);
    world.until(|world| world.ended.is_some()).await;
    assert!(matches!(world.ended, Some(Ok(()))));
    assert!(world.got == answer && world.was_closed_in_order());
    assert!(world.report.failure().is_none() && !world.app.has_failed());
}

#[tokio::test]
async fn the_apps_direction_ends_first_and_the_other_goes_on() {
    let (mut world, mut app) = World::open().await;
    app.write_all(b"banner").await.unwrap();
    app.shutdown().await.unwrap();
    world.until(|world| world.ended.is_some()).await;
    assert!(world.got == b"banner" && world.was_closed_in_order());
    world.client.writer().write_all(b"late").unwrap();
    world.client.send_close_notify();
    let mut got = Vec::new();
    world.during(app.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"late");
    assert!(world.shutdown().await.is_ok());
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_gets_an_alert_before_the_reset() {
    let (_listener, port) = listen().await;
    let mut world = World::new(port, LONG);
    // Sent instead of the ClientHello.
    world.client.write_tls(&mut Vec::new()).unwrap();
    world.sent = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    let mut first = [0; 64];
    let mut buffer = ReadBuf::new(&mut first);
    poll_fn(|cx| {
        world.poll_write(cx);
        world.app.poll_read(cx, &mut buffer)
    })
    .await
    .unwrap();
    assert_eq!(buffer.filled().first(), Some(&21));
    world.until(|world| world.ended.is_some()).await;
    assert!(matches!(world.ended, Some(Err(_))) && world.failed);
    let failure = world.report.failure();
    assert!(matches!(failure, Some(TlsFailure::Handshake(_))));
    assert!(!world.report.is_connected());
}

#[tokio::test]
async fn a_handshake_has_a_limit_and_is_over_with_the_app() {
    let (_listener, port) = listen().await;
    let mut silent = World::new(port, Duration::from_millis(10));
    silent.client.write_tls(&mut Vec::new()).unwrap();
    silent.until(|world| world.ended.is_some()).await;
    let Some(TlsFailure::Handshake(error)) = silent.report.failure() else {
        panic!("{:?}", silent.report);
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);

    let mut late = World::new(port, LONG);
    late.app.app_has_ended();
    late.until(|world| world.ended.is_some()).await;
    assert!(matches!(late.ended, Some(Err(_))));
    let failure = late.report.failure();
    assert!(matches!(failure, Some(TlsFailure::Handshake(_))));
}

#[tokio::test]
async fn bytes_that_are_cut_off_do_not_look_like_an_end() {
    let (mut world, mut app) = World::open().await;
    world.client.writer().write_all(b"half of").unwrap();
    let mut got = [0; 7];
    world.during(app.read_exact(&mut got)).await.unwrap();
    assert!(world.shutdown().await.is_err());
    world.until(|world| world.ended.is_some()).await;
    assert!(matches!(world.ended, Some(Err(_))) && !world.was_closed_in_order());
    assert!(matches!(
        world.report.failure(),
        Some(TlsFailure::Truncated)
    ));
    drop(world);
    assert!(is_reset(&mut app).await);
}

#[tokio::test]
async fn a_client_that_has_the_whole_answer_may_just_leave() {
    let (mut world, mut app) = World::open().await;
    app.write_all(b"answer").await.unwrap();
    app.shutdown().await.unwrap();
    world.until(|world| world.ended.is_some()).await;
    assert!(world.shutdown().await.is_ok());
    drop(world);
    assert!(is_reset(&mut app).await);
}

#[tokio::test]
async fn a_broken_session_gives_what_had_come_and_resets_both_sides() {
    let (mut world, mut app) = World::open().await;
    world.client.writer().write_all(b"good").unwrap();
    world.client.write_tls(&mut world.sent).unwrap();
    world.sent.extend_from_slice(&[23, 3, 3, 0, 20]);
    world.sent.extend_from_slice(&[0; 20]);
    let mut got = [0; 4];
    world.during(app.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"good");
    world.until(|world| world.ended.is_some()).await;
    assert!(matches!(world.ended, Some(Err(_))) && !world.was_closed_in_order());
    // The alert has arrived before.
    assert!(world.client.process_new_packets().is_err());
    drop(world);
    assert!(is_reset(&mut app).await);
}

#[tokio::test]
async fn the_apps_reset_is_no_end() {
    let (mut world, mut app) = World::open().await;
    app.write_all(b"half").await.unwrap();
    world.until(|world| world.got == b"half").await;
    app.set_zero_linger().unwrap();
    drop(app);
    world.until(|world| world.ended.is_some()).await;
    assert!(matches!(world.ended, Some(Err(_))) && !world.was_closed_in_order());
}

#[tokio::test]
async fn an_app_that_does_not_read_stops_its_client_and_loses_nothing() {
    let (mut world, mut app) = World::open().await;
    world.client.set_buffer_limit(None);
    let sent: Vec<u8> = (0..32 << 20).map(|i: u32| (i % 251) as u8).collect();
    world.client.writer().write_all(&sent).unwrap();
    let taken = |world: &World| world.sent.len();
    let mut before = usize::MAX;
    loop {
        let nothing = tokio::time::sleep(Duration::from_millis(50));
        world.during(nothing).await;
        if taken(&world) == before {
            break;
        }
        before = taken(&world);
    }
    assert!(
        before > sent.len() / 4,
        "only the kernel's buffers are full"
    );
    world.client.send_close_notify();
    let mut got = Vec::new();
    world.during(app.read_to_end(&mut got)).await.unwrap();
    assert!(got == sent);
}

#[tokio::test]
async fn after_the_apps_end_its_bytes_are_read_and_none_is_written() {
    let (mut world, mut app) = World::open().await;
    let answer = vec![9; 300_000];
    let writing = tokio::spawn(async move {
        app.write_all(&answer).await.unwrap();
        // The kernel closes the socket of an exited process in the same way.
        app.shutdown().await.unwrap();
        app
    });
    world.app.app_has_ended();
    let reading = poll_fn(|cx| {
        while world.poll_read(cx) {}
        match world.ended {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        }
    });
    timeout(LONG, reading).await.expect("in time");
    assert!(world.got == vec![9; 300_000] && world.was_closed_in_order());
    drop(writing.await.unwrap());
}
