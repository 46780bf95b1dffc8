//! What the host tells its operator over HTTP/1.1.
//!
//! The control socket is a Unix socket that only its owner may open: `GET /status` answers a JSON
//! object, `GET /status?watch=1` one for each change, each on a line, until the host stops
//! ([`status`]). `GET /ready` says whether clients reach their guests ([`ready`]); it can also have
//! an address where nothing else is answered.

mod client;
mod control_socket;
pub(crate) mod ready;
mod report;
mod status;
mod table;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode, header};
use odyn_http_serve::{Limits, WhenFull};

pub(crate) use self::client::{StatusError, print_status};
pub(crate) use self::control_socket::{AdminView, listen, serve};

type Body = BoxBody<Bytes, Infallible>;

/// Requests here are small, and those who ask are few.
const LIMITS: Limits = Limits {
    max_connections: 64,
    when_full: WhenFull::Close,
    head_timeout: Duration::from_secs(10),
    body_timeout: Duration::from_secs(10),
    max_body: 1024,
    // An answer to `watch=1` has no end of its own.
    drain_timeout: Duration::ZERO,
};

/// A value as one line of JSON.
fn json_line(value: &impl serde::Serialize) -> Bytes {
    // No type that is answered here can fail to become JSON.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
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
