//! What the proxy costs: GenerateDataKey through it and without it, in one run. Without it the request
//! has an attestation document too, so that the stand-in does the same work (it verifies the document
//! each time), and the answer stays encrypted. Not a test:
//! `cargo nextest run -p odyn-tests --test suites --run-ignored only --no-capture measure_the_proxy`.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use odyn_kms::attest::{Claims, Module as _, Simulated};
use odyn_kms::envelope::RecipientKey;
use tokio::net::TcpStream;

use super::client::{Wanted, World, world};

type Sender = SendRequest<Full<bytes::Bytes>>;

const BODY: &str = r#"{"KeyId":"alias/app","KeySpec":"AES_256"}"#;

/// The request as the proxy would make it.
fn attested() -> String {
    let key = RecipientKey::generate().expect("a key");
    let claims = Claims {
        public_key: Some(key.public_der().to_vec()),
        ..Claims::default()
    };
    let module = Simulated::new().expect("a module");
    let document = STANDARD.encode(module.attest(&claims).expect("a document"));
    serde_json::json!({
        "KeyId": "alias/app",
        "KeySpec": "AES_256",
        "Recipient": {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": document,
        },
    })
    .to_string()
}

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

async fn ask(sender: &mut Sender, headers: HeaderMap, body: &str) {
    let mut request = Request::new(Full::new(bytes::Bytes::copy_from_slice(body.as_bytes())));
    *request.method_mut() = http::Method::POST;
    *request.headers_mut() = headers;
    sender.ready().await.expect("ready");
    let response = sender.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body");
}

async fn one_by_one(world: &World, way: Way, body: &str, count: usize) -> Vec<Duration> {
    let mut sender = connect(world, way).await;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let headers = world.headers_for(matches!(way, Way::Direct), body);
        let start = Instant::now();
        ask(&mut sender, headers, body).await;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times
}

async fn together(world: &World, way: Way, body: &str, clients: usize, each: usize) -> f64 {
    let start = Instant::now();
    let work = (0..clients).map(|_| async {
        let mut sender = connect(world, way).await;
        for _ in 0..each {
            let headers = world.headers_for(matches!(way, Way::Direct), body);
            ask(&mut sender, headers, body).await;
        }
    });
    futures::future::join_all(work).await;
    (clients * each) as f64 / start.elapsed().as_secs_f64()
}

#[ignore = "a measurement"]
#[tokio::test(flavor = "multi_thread")]
async fn measure_the_proxy() {
    let world = world(Wanted::default()).await;
    let attested = attested();
    for way in [Way::Direct, Way::Proxy, Way::Direct, Way::Proxy] {
        let body = match way {
            Way::Direct => &attested,
            Way::Proxy => BODY,
        };
        one_by_one(&world, way, body, 50).await;
        let times = one_by_one(&world, way, body, 500).await;
        let (half, most) = (times[250], times[495]);
        let rate = together(&world, way, body, 32, 50).await;
        println!("{way:?}: p50 {half:?}, p99 {most:?}; {rate:.0} requests/s with 32 clients");
    }
}
