//! The service.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use anyhow::Result;
use futures::{TryStreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::{BOTH, Count, DOWN, ECHO, LIMIT, Part, SLOW, UP, codec, say};

/// Bytes of each message of a stream down.
const PART: usize = 64 << 10;

/// Serves until SIGTERM, and then what is open.
pub(crate) async fn run(address: SocketAddr) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let incoming = TcpIncoming::bind(address)?.with_nodelay(Some(true));
    say("ready")?;
    let stop = async move {
        terminate.recv().await;
        // A reader that is gone misses nothing.
        let _ = say("stopping");
    };
    let server = Server::builder();
    Ok(server
        .serve_with_incoming_shutdown(Test, incoming, stop)
        .await?)
}

/// `service Test`, as protoc's plug-in would write it.
#[derive(Debug, Clone)]
struct Test;

impl Service<http::Request<Body>> for Test {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            Ok(match &*path {
                ECHO => grpc(codec()).unary(Method(echo), request).await,
                SLOW => grpc(codec()).unary(Method(slow), request).await,
                DOWN => grpc(codec()).server_streaming(Method(down), request).await,
                UP => grpc(codec()).client_streaming(Method(up), request).await,
                BOTH => grpc(codec()).streaming(Method(both), request).await,
                _ => Status::unimplemented(path).into_http(),
            })
        })
    }
}

fn grpc<T, U>(codec: ProstCodec<T, U>) -> Grpc<ProstCodec<T, U>>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    Grpc::new(codec)
        .max_decoding_message_size(LIMIT)
        .max_encoding_message_size(LIMIT)
}

/// A function that answers calls.
struct Method<F>(F);

impl<F, R, A, T> Service<Request<R>> for Method<F>
where
    F: Fn(Request<R>) -> A,
    A: Future<Output = Result<Response<T>, Status>>,
{
    type Response = Response<T>;
    type Error = Status;
    type Future = A;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<R>) -> A {
        self.0(request)
    }
}

async fn echo(request: Request<Part>) -> Result<Response<Part>, Status> {
    Ok(Response::new(request.into_inner()))
}

/// Says when it is given up, and which in their order this is.
struct Given;

impl Drop for Given {
    fn drop(&mut self) {
        static GIVEN_UP: AtomicUsize = AtomicUsize::new(0);
        let number = GIVEN_UP.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = say(&format!("given up {number}"));
    }
}

/// Never answers.
async fn slow(_: Request<Part>) -> Result<Response<Part>, Status> {
    let _given = Given;
    std::future::pending().await
}

type Parts = stream::Iter<Box<dyn Iterator<Item = Result<Part, Status>> + Send>>;

/// So many messages, each of one number.
async fn down(request: Request<Count>) -> Result<Response<Parts>, Status> {
    let numbers = 0..request.into_inner().number;
    let parts = numbers.map(|number| Ok(Part::new(vec![number as u8; PART])));
    Ok(Response::new(stream::iter(
        Box::new(parts) as Box<dyn Iterator<Item = _> + Send>
    )))
}

async fn up(request: Request<Streaming<Part>>) -> Result<Response<Count>, Status> {
    let sum = |sum, part: Part| async move { Ok(sum + part.data.len() as u64) };
    let number = request.into_inner().try_fold(0, sum).await?;
    Ok(Response::new(Count { number }))
}

async fn both(request: Request<Streaming<Part>>) -> Result<Response<Streaming<Part>>, Status> {
    Ok(Response::new(request.into_inner()))
}
