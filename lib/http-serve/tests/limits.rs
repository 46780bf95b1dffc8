//! Each limit against a client that breaks it.
#![allow(missing_docs)]

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use odyn_http_serve::{BodyError, Limits, RequestBody, WhenFull, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

const LIMITS: Limits = Limits {
    max_connections: 2,
    when_full: WhenFull::Close,
    head_timeout: SOON,
    body_timeout: SOON,
    max_body: 100,
    drain_timeout: SOON,
};

/// Answers with the body, or with why there is none. The path `/slow` waits for `go`.
struct Server {
    address: SocketAddr,
    go: Arc<Semaphore>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (go, stop) = (Arc::new(Semaphore::new(0)), CancellationToken::new());
        let handler = handler(Arc::clone(&go));
        let task = tokio::spawn(serve("test", listener, limits, handler, stop.clone()));
        Self {
            address,
            go,
            stop,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

fn handler(go: Arc<Semaphore>) -> impl Fn(Request<RequestBody>) -> Answering {
    move |request| {
        let go = Arc::clone(&go);
        Box::pin(async move {
            if request.uri().path() == "/slow" {
                go.acquire().await.unwrap().forget();
            }
            let (status, text) = match request.into_body() {
                Ok(body) => (StatusCode::OK, body),
                Err(BodyError::TooLong(_)) => (StatusCode::PAYLOAD_TOO_LARGE, Bytes::new()),
                Err(BodyError::Timeout(_)) => (StatusCode::REQUEST_TIMEOUT, Bytes::new()),
                Err(_) => (StatusCode::BAD_REQUEST, Bytes::new()),
            };
            let mut response = Response::new(Full::new(text));
            *response.status_mut() = status;
            response
        })
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("in time")
}

/// Everything until the server closes; a reset is an end, too.
async fn rest(socket: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = soon(socket.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

/// An answer without an end of the connection.
async fn answer(socket: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut bytes = [0; 1024];
        let count = soon(socket.read(&mut bytes)).await.unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    text
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other_on_one_connection() {
    let server = Server::start(LIMITS).await;
    let mut client = server.connect().await;
    for body in ["one", "two"] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n{body}");
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut client, body).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_served_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let handler = |_| async { Response::new(Full::<Bytes>::from("there")) };
    tokio::spawn(serve(
        "test",
        listener,
        LIMITS,
        handler,
        CancellationToken::new(),
    ));
    let mut client = UnixStream::connect(&path).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut client).await.ends_with("there"));
}

#[tokio::test]
async fn a_head_that_does_not_end_and_an_idle_connection_are_closed() {
    let limits = Limits {
        head_timeout: SHORT,
        ..LIMITS
    };
    let server = Server::start(limits).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    rest(&mut slow).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let server = Server::start(LIMITS).await;
    let mut client = server.connect().await;
    let header = format!("a: {}\r\n", "x".repeat(1000));
    let _ = client.write_all(b"GET / HTTP/1.1\r\n").await;
    for _ in 0..100 {
        if client.write_all(header.as_bytes()).await.is_err() {
            break;
        }
    }
    let answer = rest(&mut client).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_has_a_limit_with_and_without_its_length() {
    let server = Server::start(LIMITS).await;
    let long = "x".repeat(101);
    for framing in [
        format!("content-length: 101\r\n\r\n{long}"),
        format!("transfer-encoding: chunked\r\n\r\n65\r\n{long}\r\n0\r\n\r\n"),
    ] {
        let mut client = server.connect().await;
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{framing}");
        client.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_has_an_answer() {
    let limits = Limits {
        body_timeout: SHORT,
        ..LIMITS
    };
    let server = Server::start(limits).await;
    let mut client = server.connect().await;
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn over_the_limit_the_newest_connection_is_closed() {
    let server = Server::start(LIMITS).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client
            .write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        held.push(client);
    }
    let mut third = server.connect().await;
    assert_eq!(rest(&mut third).await, "");
    server.go.add_permits(2);
    for client in &mut held {
        answer(client, "\r\n\r\n").await;
    }
    drop(held);
    // The places are free again, a moment later.
    soon(async {
        loop {
            let mut client = server.connect().await;
            let _ = client.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
            if rest(&mut client).await.starts_with("HTTP/1.0 200 ") {
                return;
            }
            sleep(SHORT).await;
        }
    })
    .await;
}

#[tokio::test]
async fn over_the_limit_a_client_can_wait_for_its_place() {
    let limits = Limits {
        when_full: WhenFull::Wait,
        max_connections: 1,
        ..LIMITS
    };
    let server = Server::start(limits).await;
    let slow = b"GET /slow HTTP/1.0\r\n\r\n";
    let mut first = server.connect().await;
    first.write_all(slow).await.unwrap();
    let mut second = server.connect().await;
    second.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let early = timeout(SHORT, second.read_u8()).await;
    assert!(early.is_err(), "answered while the only place was taken");
    server.go.add_permits(1);
    assert!(rest(&mut first).await.starts_with("HTTP/1.0 200 "));
    assert!(rest(&mut second).await.starts_with("HTTP/1.0 200 "));
}

#[tokio::test]
async fn at_the_end_a_request_is_answered_and_no_other_is_taken() {
    let server = Server::start(LIMITS).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    answer(&mut idle, "\r\n\r\n").await;
    server.stop.cancel();
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed");
    assert!(!server.task.is_finished());
    server.go.add_permits(1);
    assert!(rest(&mut busy).await.starts_with("HTTP/1.1 200 "));
    soon(server.task).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn at_the_end_a_request_that_is_not_answered_in_time_is_cut() {
    let limits = Limits {
        drain_timeout: SHORT,
        ..LIMITS
    };
    let server = Server::start(limits).await;
    let mut client = server.connect().await;
    client
        .write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    // Until the request is with the handler.
    sleep(SHORT).await;
    server.stop.cancel();
    assert_eq!(rest(&mut client).await, "");
    soon(server.task).await.unwrap();
}

#[tokio::test]
async fn an_answer_without_end_is_cut_at_the_end() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        drain_timeout: Duration::ZERO,
        ..LIMITS
    };
    let stop = CancellationToken::new();
    let handler = |_| async { Response::new(Endless) };
    let task = tokio::spawn(serve("test", listener, limits, handler, stop.clone()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    answer(&mut client, "\r\n\r\n").await;
    stop.cancel();
    rest(&mut client).await;
    soon(task).await.unwrap();
}

struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}
