//! What the proxy costs: GenerateDataKey through it and without it, in one run. Not a test:
//! `cargo nextest run -p odyn-tests --test kms --run-ignored only --no-capture`.

use std::time::{Duration, Instant};

use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::client::{Wanted, World, world};

type Sender = SendRequest<Full<bytes::Bytes>>;

const BODY: &str = r#"{"KeyId":"alias/app","KeySpec":"AES_256"}"#;

/// Which way requests go.
#[derive(Clone, Copy, Debug)]
enum Way {
    Direct,
    Proxy,
}

async fn connect(world: &World, way: Way) -> Sender {
    let (sender, connection) = match way {
        Way::Proxy => {
            let socket = TcpStream::connect(&world.proxy).await.expect("the proxy");
            socket.set_nodelay(true).expect("a socket");
            let (sender, connection) = handshake(TokioIo::new(socket)).await.expect("HTTP");
            (sender, tokio::spawn(async { drop(connection.await) }))
        }
        Way::Direct => {
            let stream = world.direct_tls().await;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
            (sender, tokio::spawn(async { drop(connection.await) }))
        }
    };
    drop(connection);
    sender
}

async fn ask(sender: &mut Sender, headers: HeaderMap) {
    let mut request = Request::new(Full::new(bytes::Bytes::from_static(BODY.as_bytes())));
    *request.method_mut() = http::Method::POST;
    *request.headers_mut() = headers;
    sender.ready().await.expect("ready");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body");
}

async fn one_by_one(world: &World, way: Way, count: usize) -> Vec<Duration> {
    let mut sender = connect(world, way).await;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let headers = world.headers_for(matches!(way, Way::Direct), BODY);
        let start = Instant::now();
        ask(&mut sender, headers).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times
}

async fn together(world: &World, way: Way, clients: usize, each: usize) -> f64 {
    let start = Instant::now();
    let work = (0..clients).map(|_| async {
        let mut sender = connect(world, way).await;
        for _ in 0..each {
            let headers = world.headers_for(matches!(way, Way::Direct), BODY);
            ask(&mut sender, headers).await;
        }
    });
    futures::future::join_all(work).await;
    (clients * each) as f64 / start.elapsed().as_secs_f64()
}

#[ignore = "a measurement"]
#[tokio::test(flavor = "multi_thread")]
async fn measure_the_proxy() {
    let world = world(Wanted::default()).await;
    for way in [Way::Direct, Way::Proxy, Way::Direct, Way::Proxy] {
        one_by_one(&world, way, 50).await;
        let times = one_by_one(&world, way, 500).await;
        let (half, most) = (times[250], times[495]);
        let rate = together(&world, way, 32, 50).await;
        println!("{way:?}: p50 {half:?}, p99 {most:?}; {rate:.0} requests/s with 32 clients");
    }
}
