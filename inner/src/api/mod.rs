//! HTTP on the guest's loopback: attestation documents for the program, as Enclaver has it.
//!
//! `POST /v1/attestation` with JSON (`nonce` and `user_data` in base64, `public_key` in PEM, all
//! optional), or `GET /v1/attestation?nonce=BASE64`. The answer is the document as the module makes it.

mod question;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use odyn_kms::Error;
use odyn_kms::attest::{Claims, Module};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const PATH: &str = "/v1/attestation";
/// Longest request, in bytes: twice what base64 and PEM make of the limits.
const MAX_REQUEST: usize = 8 * 1024;
/// How long a client may take for a request's head, and for its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS: usize = 64;
/// Pause after accept() failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, module: Arc<dyn Module>, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&permits).acquire_owned();
        let accepted = async { (permit.await, listener.accept().await) };
        let (permit, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (module, stop) = (Arc::clone(&module), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(|request| answer(Arc::clone(&module), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(socket), service);
            let _ = stop.run_until_cancelled(connection).await;
        });
    }
}

async fn answer(
    module: Arc<dyn Module>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() != PATH {
        return Ok(failure(StatusCode::NOT_FOUND, &format!("there is {PATH}")));
    }
    let claims = match parts.method {
        Method::GET => question::of_query(parts.uri.query().unwrap_or_default()),
        Method::POST => {
            match tokio::time::timeout(PATIENCE, Limited::new(body, MAX_REQUEST).collect()).await {
                Ok(Ok(body)) => question::of_json(&body.to_bytes()),
                _ => Err("the body is broken, late, or longer than 8 KiB".to_owned()),
            }
        }
        _ => {
            let message = "GET or POST";
            return Ok(failure(StatusCode::METHOD_NOT_ALLOWED, message));
        }
    };
    Ok(match claims {
        Ok(claims) => document(module, claims).await,
        Err(message) => failure(StatusCode::BAD_REQUEST, &message),
    })
}

async fn document(module: Arc<dyn Module>, claims: Claims) -> Response<Full<Bytes>> {
    // The module takes some milliseconds: not on a thread that serves flows.
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
