//! The control socket: how the guests are, for the operator of the host.
//!
//! HTTP/1.1 over a Unix socket that only its owner may open: `GET /status` answers a JSON object,
//! `GET /status?watch=1` one for each change, each on a line of its own, until the host half stops.
//! `GET /ready` says whether clients reach their guests ([`ready`]).

mod client;
pub(crate) mod ready;
mod report;
mod table;

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use client::{StatusError, status};
use enclaver_outer::Guests;
use enclaver_outer::ingress::Listeners;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use odyn_link::{ListenError, ListenOptions, Listener, Tuning};
use odyn_proto::Endpoint;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::report::StatusReport;

/// Those who ask at the same time.
const MAX_CONNECTIONS: usize = 64;
/// How long a request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept()` failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = BoxBody<Bytes, Infallible>;

/// What can be asked for.
#[derive(Debug, Clone)]
pub(crate) struct AdminView {
    guests: Guests,
    listeners: Listeners,
}

impl AdminView {
    pub(crate) fn new(guests: Guests, listeners: Listeners) -> Self {
        Self { guests, listeners }
    }

    fn report(&self) -> StatusReport {
        StatusReport {
            guests: self.guests.views(),
            listeners: self.listeners.views(),
        }
    }
}

/// Opens the socket; what a host half that was killed left there is replaced.
pub(crate) fn listen(path: &Path) -> Result<Listener, ListenError> {
    let endpoint = Endpoint::Unix {
        path: path.to_owned(),
    };
    Listener::bind(&endpoint, ListenOptions::default())
}

/// Answers until `stop` is cancelled. Answers that never end are cut then.
pub(crate) async fn serve(listener: Listener, view: AdminView, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let tuning = Tuning::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept(&tuning) => accepted,
        };
        let transport = match accepted {
            Ok((transport, _)) if connections.len() < MAX_CONNECTIONS => transport,
            Ok((_, peer)) => {
                warn!(%peer, max = MAX_CONNECTIONS, "too many ask for the status: turned away");
                continue;
            }
            Err(error) => {
                warn!(%error, "can't accept on the control socket");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (view, stop) = (view.clone(), stop.clone());
        connections.spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &view);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(transport), service);
            tokio::select! {
                result = connection => if let Err(error) = result {
                    debug!(%error, "a request for the status failed");
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

fn answer(request: &Request<Incoming>, view: &AdminView) -> Response<Body> {
    let watch = request.uri().query() == Some("watch=1");
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/status") if watch => json(StreamBody::new(changes(view)).boxed()),
        (&Method::GET, "/status") => json(Full::new(line(&view.report())).boxed()),
        (&Method::GET, "/ready") => ready::answer(&view.listeners),
        (_, "/status" | "/ready") => empty(StatusCode::METHOD_NOT_ALLOWED),
        _ => empty(StatusCode::NOT_FOUND),
    }
}

/// How the guests are now, and again after each change.
fn changes(
    view: &AdminView,
) -> impl stream::Stream<Item = Result<Frame<Bytes>, Infallible>> + use<> {
    let mut guests = view.guests.changes();
    guests.mark_changed();
    let changes = (guests, view.listeners.changes());
    stream::unfold(
        (view.clone(), changes, None),
        |(view, (mut guests, mut listeners), last)| async move {
            loop {
                tokio::select! {
                    changed = guests.changed() => changed.ok()?,
                    changed = listeners.changed() => changed.ok()?,
                }
                let report = view.report();
                if last.as_ref() != Some(&report) {
                    let frame = Frame::data(line(&report));
                    return Some((Ok(frame), (view, (guests, listeners), Some(report))));
                }
            }
        },
    )
}

fn line(report: &StatusReport) -> Bytes {
    // Nothing in it can fail to become JSON.
    let mut text = serde_json::to_vec(report).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status;
    response
}
