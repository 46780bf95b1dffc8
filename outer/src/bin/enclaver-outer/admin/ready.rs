//! `GET /ready`: whether clients reach their guests, for load balancers and whoever deploys.
//!
//! At an address of its own (`--ready-listen`) nothing else is told: who may ask there need not be
//! the operator.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use enclaver_outer::ingress::{ListenerState, ListenerView, Listeners};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{ACCEPT_PAUSE, Body, MAX_CONNECTIONS, REQUEST_TIMEOUT, empty, json};

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    listeners: Vec<ListenerView>,
}

/// Opens the socket.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    info!(%address, "telling at /ready whether clients reach their guests");
    TcpListener::from_std(listener)
}

/// 200 when every listener reaches a guest, 503 when one does not; and which does, and which not.
pub(super) fn answer(listeners: &Listeners) -> Response<Body> {
    let listeners = listeners.views();
    let ready = listeners
        .iter()
        .all(|listener| listener.state == ListenerState::Ready);
    // Nothing in it can fail to become JSON.
    let mut text = serde_json::to_vec(&Readiness { ready, listeners }).unwrap_or_default();
    text.push(b'\n');
    let mut response = json(Full::new(Bytes::from(text)).boxed());
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Answers until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, listeners: Listeners, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) if connections.len() < MAX_CONNECTIONS => socket,
            Ok((_, peer)) => {
                debug!(%peer, max = MAX_CONNECTIONS, "too many ask at /ready: turned away");
                continue;
            }
            Err(error) => {
                warn!(%error, "can't accept for /ready");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (listeners, stop) = (listeners.clone(), stop.clone());
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = match (request.method(), request.uri().path()) {
                    (&Method::GET, "/ready") => answer(&listeners),
                    (_, "/ready") => empty(StatusCode::METHOD_NOT_ALLOWED),
                    _ => empty(StatusCode::NOT_FOUND),
                };
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(socket), service);
            tokio::select! {
                _ = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}
