//! The client: a call of every kind, all on one connection.

use std::future::ready;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::stream;
use futures::stream::StreamExt as _;
use http::uri::PathAndQuery;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::connect::Connector;
use crate::{BOTH, Count, DOWN, ECHO, LARGE, LIMIT, Part, SLOW, UP, codec, say};

/// Messages down, and up.
const DOWN_COUNT: u64 = 300;
const UP_COUNT: usize = 8;

/// When the client gives a call up. Whatever is slow only makes it come later.
const SHORT: Duration = Duration::from_millis(300);

/// How often the client looks whether it may go on.
const LOOK: Duration = Duration::from_millis(20);

/// Makes the calls one after another; `go` is the file that lets the last one go on.
pub(crate) async fn run(address: SocketAddr, ca: &str, go: &Path) -> Result<()> {
    let connector = Connector::new(address, ca)?;
    // Whether there is TLS is the connector's business.
    let endpoint = Endpoint::from_static("http://shop.example");
    let channel = endpoint.connect_with_connector(connector.clone()).await?;
    let mut client = Client(
        Grpc::new(channel)
            .max_decoding_message_size(LIMIT)
            .max_encoding_message_size(LIMIT),
    );
    client.unary().await.context("unary")?;
    client.down().await.context("down")?;
    client.up().await.context("up")?;
    client.given_up().await.context("given up")?;
    client.both(go).await.context("both")?;
    let count = connector.count();
    ensure!(count == 1, "{count} connections");
    Ok(())
}

struct Client(Grpc<Channel>);

impl Client {
    async fn unary(&mut self) -> Result<()> {
        let large = large(1);
        let request = Request::new(Part::new(large.clone()));
        let got = self
            .ready()
            .await?
            .unary(request, path(ECHO), codec())
            .await;
        let got: Part = got?.into_inner();
        ensure!(got.data == large, "another message");
        Ok(say("unary")?)
    }

    async fn down(&mut self) -> Result<()> {
        let request = Request::new(Count { number: DOWN_COUNT });
        let grpc = self.ready().await?;
        let got = grpc.server_streaming(request, path(DOWN), codec()).await?;
        let mut parts = got.into_inner();
        for number in 0..DOWN_COUNT {
            let part: Part = parts.message().await?.context("an end too early")?;
            let wanted = number as u8;
            ensure!(part.data.iter().all(|byte| *byte == wanted), "not {number}");
        }
        ensure!(parts.message().await?.is_none(), "too many");
        Ok(say("down")?)
    }

    async fn up(&mut self) -> Result<()> {
        let part = large(2);
        let parts = (0..UP_COUNT).map(move |_| Part::new(part.clone()));
        let request = Request::new(stream::iter(parts));
        let grpc = self.ready().await?;
        let got = grpc.client_streaming(request, path(UP), codec()).await?;
        let total: Count = got.into_inner();
        ensure!(total.number == (UP_COUNT * LARGE) as u64, "{total:?}");
        Ok(say("up")?)
    }

    /// A call with a deadline, which the server knows, and one that is reset.
    async fn given_up(&mut self) -> Result<()> {
        let mut request = Request::new(Part::new("deadline"));
        request.set_timeout(SHORT);
        let grpc = self.ready().await?;
        let got = grpc.unary::<_, Part, _>(request, path(SLOW), codec()).await;
        let code = got.err().context("an answer")?.code();
        // Of whichever side was first: tonic's says that it has cancelled the call.
        let is_one = matches!(code, Code::DeadlineExceeded | Code::Cancelled);
        ensure!(is_one, "{code:?}");
        say("deadline")?;

        let request = Request::new(Part::new("reset"));
        let grpc = self.ready().await?;
        tokio::select! {
            got = grpc.unary::<_, Part, _>(request, path(SLOW), codec()) => {
                anyhow::bail!("an answer: {got:?}");
            }
            () = sleep(SHORT) => {}
        }
        Ok(say("reset")?)
    }

    async fn both(&mut self, go: &Path) -> Result<()> {
        let wanted = messages();
        let go = go.to_owned();
        let sent = stream::iter(wanted.clone())
            .enumerate()
            .then(move |(at, message)| {
                let go = go.clone();
                async move {
                    if at == 1 {
                        exists(go).await;
                    }
                    Part::new(message)
                }
            });
        // The service closes the connection behind this call, and whatever comes to a closed socket
        // has its kernel throw away what is not sent yet: here as without anything in between.
        let (all_came, end) = oneshot::channel::<()>();
        let end = stream::once(end).filter_map(|_| ready(None));
        let sent = sent.chain(end);
        let grpc = self.ready().await?;
        let request = Request::new(sent);
        let got = grpc.streaming(request, path(BOTH), codec()).await?;
        let mut parts = got.into_inner();
        for (at, message) in wanted.iter().enumerate() {
            let part: Part = parts.message().await?.context("an end too early")?;
            ensure!(part.data == message, "another message at {at}");
            if at == 0 {
                // Only now the server has the call: what comes behind GOAWAY is not taken.
                say("midway")?;
            }
        }
        ensure!(all_came.send(()).is_ok(), "the service took not all");
        ensure!(parts.message().await?.is_none(), "too many");
        Ok(say("both")?)
    }

    async fn ready(&mut self) -> Result<&mut Grpc<Channel>> {
        self.0.ready().await?;
        Ok(&mut self.0)
    }
}

/// The messages of the last call: a small one, and large ones among others.
fn messages() -> Vec<Bytes> {
    let numbers = (0..100_u32).map(|number| number.to_string().into());
    let first = [Bytes::from_static(b"first"), large(3)];
    first.into_iter().chain(numbers).chain([large(4)]).collect()
}

/// Bytes that no other seed has.
fn large(seed: u64) -> Bytes {
    let mut state = seed;
    let bytes = (0..LARGE).map(|_| {
        // Knuth's generator of MMIX.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    bytes.collect()
}

async fn exists(file: PathBuf) {
    while !file.exists() {
        sleep(LOOK).await;
    }
}

fn path(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}
