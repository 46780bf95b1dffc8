//! The HTTP API on the guest's loopback: attestation documents, compatible with Enclaver.
//!
//! `POST /v1/attestation` takes JSON (`nonce` and `user_data` in base64, `public_key` in PEM, all
//! optional). `GET /v1/attestation?nonce=BASE64` takes a nonce. The response is the module's
//! document, unchanged.

mod question;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use odyn_http_serve::{Limits, RequestBody, WhenFull};
use odyn_kms::Error;
use odyn_kms::attest::{Claims, Module};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const PATH: &str = "/v1/attestation";

const LIMITS: Limits = Limits {
    max_connections: 64,
    when_full: WhenFull::Wait,
    head_timeout: Duration::from_secs(10),
    body_timeout: Duration::from_secs(10),
    // Twice the size that base64 and PEM make of the module's limits.
    max_body: 8 * 1024,
    drain_timeout: Duration::from_secs(1),
};

/// Serves until `stop` is cancelled, then finishes the requests in progress.
pub async fn serve(listener: TcpListener, module: Arc<dyn Module>, stop: CancellationToken) {
    let handler = move |request| answer(Arc::clone(&module), request);
    odyn_http_serve::serve("api", listener, LIMITS, handler, stop).await;
}

async fn answer(module: Arc<dyn Module>, request: Request<RequestBody>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() != PATH {
        return failure(StatusCode::NOT_FOUND, &format!("the API is at {PATH}"));
    }
    let claims = match parts.method {
        Method::GET => question::of_query(parts.uri.query().unwrap_or_default()),
        Method::POST => match body {
            Ok(body) => question::of_json(&body),
            Err(error) => Err(error.to_string()),
        },
        _ => return failure(StatusCode::METHOD_NOT_ALLOWED, "GET or POST"),
    };
    match claims {
        Ok(claims) => document(module, claims).await,
        Err(message) => failure(StatusCode::BAD_REQUEST, &message),
    }
}

async fn document(module: Arc<dyn Module>, claims: Claims) -> Response<Full<Bytes>> {
    // The module takes some milliseconds, too long for a thread that serves flows.
    let made = tokio::task::spawn_blocking(move || module.attest(&claims)).await;
    match made {
        Ok(Ok(document)) => {
            let mut response = Response::new(Full::new(document.into()));
            let cbor = HeaderValue::from_static("application/cbor");
            response.headers_mut().insert(header::CONTENT_TYPE, cbor);
            response
        }
        Ok(Err(error @ Error::Limit { .. })) => {
            failure(StatusCode::BAD_REQUEST, &error.to_string())
        }
        Ok(Err(error)) => failure(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "interrupted"),
    }
}

fn failure(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": message }).to_string();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
