//! `GET /ready`: whether clients reach their guests, for load balancers and deployments.
//!
//! At the address of `--ready-listen` nothing else is answered: a client there need not be the
//! operator.

use std::io;
use std::net::SocketAddr;

use enclaver_outer::ingress::{ListenerState, ListenerView, Listeners};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode};
use odyn_http_serve::RequestBody;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Body, LIMITS, empty, json, json_line};

#[derive(Serialize)]
struct ReadyAnswer {
    ready: bool,
    listeners: Vec<ListenerView>,
}

/// Opens the socket of `--ready-listen`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    info!(%address, "answering GET /ready");
    TcpListener::from_std(listener)
}

/// Answers 200 when every listener reaches a guest, else 503, and the state of each.
pub(super) fn answer(listeners: &Listeners) -> Response<Body> {
    let listeners = listeners.views();
    let ready = listeners
        .iter()
        .all(|listener| listener.state == ListenerState::Ready);
    let text = json_line(&ReadyAnswer { ready, listeners });
    let mut response = json(Full::new(text).boxed());
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Answers until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, listeners: Listeners, stop: CancellationToken) {
    let handler = move |request: Request<RequestBody>| {
        let response = match (request.method(), request.uri().path()) {
            (&Method::GET, "/ready") => answer(&listeners),
            (_, "/ready") => empty(StatusCode::METHOD_NOT_ALLOWED),
            _ => empty(StatusCode::NOT_FOUND),
        };
        async { response }
    };
    odyn_http_serve::serve("/ready", listener, LIMITS, handler, stop).await;
}
