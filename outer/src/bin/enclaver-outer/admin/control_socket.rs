//! The control socket: a Unix socket of the operator.

use std::io;
use std::path::Path;

use enclaver_outer::Guests;
use enclaver_outer::ingress::Listeners;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode};
use odyn_http_serve::{Accept, RequestBody};
use odyn_link::{ListenError, ListenOptions, Listener, Transport, Tuning};
use odyn_proto::Endpoint;
use tokio_util::sync::CancellationToken;

use super::report::StatusReport;
use super::{Body, LIMITS, empty, json, json_line, ready, status};

/// What can be asked for.
#[derive(Debug, Clone)]
pub(crate) struct AdminView {
    pub(super) guests: Guests,
    pub(super) listeners: Listeners,
}

impl AdminView {
    pub(crate) fn new(guests: Guests, listeners: Listeners) -> Self {
        Self { guests, listeners }
    }

    pub(super) fn report(&self) -> StatusReport {
        StatusReport {
            guests: self.guests.views(),
            listeners: self.listeners.views(),
        }
    }
}

/// The control socket, listening.
pub(crate) struct ControlSocket {
    listener: Listener,
    tuning: Tuning,
}

impl Accept for ControlSocket {
    type Socket = Transport;

    async fn accept(&self) -> io::Result<Transport> {
        let (transport, _) = self.listener.accept(&self.tuning).await?;
        Ok(transport)
    }
}

/// Opens the control socket. A socket that a killed host left there is replaced.
pub(crate) fn listen(path: &Path) -> Result<ControlSocket, ListenError> {
    let endpoint = Endpoint::Unix {
        path: path.to_owned(),
    };
    Ok(ControlSocket {
        listener: Listener::bind(&endpoint, ListenOptions::default())?,
        tuning: Tuning::default(),
    })
}

/// Answers until `stop` is cancelled. Answers that never end are cut then.
pub(crate) async fn serve(socket: ControlSocket, view: AdminView, stop: CancellationToken) {
    let handler = move |request| {
        let response = answer(&request, &view);
        async { response }
    };
    odyn_http_serve::serve("control socket", socket, LIMITS, handler, stop).await;
}

fn answer(request: &Request<RequestBody>, view: &AdminView) -> Response<Body> {
    let watch = request.uri().query() == Some("watch=1");
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/status") if watch => json(status::changes(view)),
        (&Method::GET, "/status") => json(Full::new(json_line(&view.report())).boxed()),
        (&Method::GET, "/ready") => ready::answer(&view.listeners),
        (_, "/status" | "/ready") => empty(StatusCode::METHOD_NOT_ALLOWED),
        _ => empty(StatusCode::NOT_FOUND),
    }
}
