//! HTTPS, signatures, and errors.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use odyn_kms::sign::SignedRequest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::actions::{Refusal, answer};
use super::emulator::Emulator;
use super::{Fault, Seen, StandIn, lock};

/// TLS with a certificate and key in PEM files.
///
/// # Errors
/// The files cannot be used.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves for ever.
pub async fn serve(kms: StandIn, listener: TcpListener, tls: TlsAcceptor) {
    for connection in 0.. {
        let Ok((socket, _)) = listener.accept().await else {
            return;
        };
        let (kms, tls) = (kms.clone(), tls.clone());
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let Ok(stream) = tls.accept(socket).await else {
                return;
            };
            let service = service_fn(|request| respond(kms.clone(), request, connection));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    kms: StandIn,
    request: Request<Body>,
    connection: usize,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let turn = kms.0.answers.fetch_add(1, Ordering::Relaxed);
    let target = parts.headers.get("x-amz-target");
    let target = target.and_then(|t| t.to_str().ok()).unwrap_or_default();
    let action = target.strip_prefix("TrentService.").unwrap_or_default();
    let fault = lock(&kms.0.faults).pop_front();
    let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let document = json["Recipient"]["AttestationDocument"].as_str();
    let incoming = SignedRequest::read(&parts.uri, &parts.headers);
    kms.note(Seen {
        action: action.to_owned(),
        access_key: access_key(&parts.headers),
        document: document.map(str::to_owned),
        connection,
    });
    match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Close) => return Err(std::io::Error::other("told to close")),
        _ => {}
    }
    let result = match incoming {
        Ok(incoming) => authentic(&kms, &incoming, &parts, &body),
        Err(refused) => Err(Refusal::new(
            403,
            "MissingAuthenticationTokenException",
            &refused.to_string(),
        )),
    };
    let result = match (result, fault) {
        (Ok(()), Some(Fault::Error(status, code))) => {
            Err(Refusal::new(status, code, "told to fail"))
        }
        (Ok(()), _) => match kms.0.emulator.filter(|_| Emulator::knows(action)) {
            Some(emulator) => {
                let answer = emulator.answer(&kms, action, &parts.headers, json, (fault, turn));
                match answer.await {
                    Ok(answer) => return Ok(dated(&kms, answer.map(Full::new))),
                    Err(refusal) => Err(refusal),
                }
            }
            None => answer(&kms, action, &json, fault, turn),
        },
        (Err(refusal), _) => Err(refusal),
    };
    Ok(write(&kms, result, fault))
}

/// An answer with the time of our clock.
fn dated(kms: &StandIn, mut answer: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if let Ok(date) = httpdate::fmt_http_date(kms.now()).parse() {
        answer.headers_mut().insert("date", date);
    }
    answer
}

fn access_key(headers: &HeaderMap) -> String {
    let header = headers.get("authorization").and_then(|h| h.to_str().ok());
    let key = header.and_then(|h| h.split_once("Credential=")?.1.split('/').next());
    key.unwrap_or_default().to_owned()
}

fn authentic(
    kms: &StandIn,
    incoming: &SignedRequest,
    parts: &http::request::Parts,
    body: &[u8],
) -> Result<(), Refusal> {
    let accepted = lock(&kms.0.accepted);
    let token = parts.headers.get("x-amz-security-token");
    let token = token.and_then(|token| token.to_str().ok());
    if access_key(&parts.headers) != accepted.credentials.access_key_id
        || token != accepted.token.as_deref()
    {
        let message = "The security token included in the request is expired";
        return Err(Refusal::new(400, "ExpiredTokenException", message));
    }
    incoming
        .verify(
            &parts.method,
            &parts.headers,
            body,
            &accepted.credentials,
            kms.now(),
        )
        .map_err(|refused| Refusal::new(400, "InvalidSignatureException", &refused.to_string()))
}

fn write(
    kms: &StandIn,
    result: Result<Value, Refusal>,
    fault: Option<Fault>,
) -> Response<Full<Bytes>> {
    let (status, body) = match result {
        Ok(mut value) => {
            if let Some(Fault::Long(length)) = fault {
                value["Long"] = json!("x".repeat(length));
            }
            // A member that no SDK knows, in a form that no serializer of ours would write.
            let text = value.to_string();
            let text = text.trim_end_matches('}');
            let comma = if text == "{" { "" } else { "," };
            (
                200,
                format!("{text}{}{comma}\"Odd\": [1.50e+00]}}", braces(&value)),
            )
        }
        Err(Refusal {
            status,
            code,
            message,
        }) => {
            let text = json!({ "__type": code, "message": message, "extra": [1] }).to_string();
            (status, text)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amzn-requestid", "11111111-2222-3333-4444-555555555555"),
    ] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    dated(kms, response)
}

/// The braces that were trimmed too many: of a value that ends in an object.
fn braces(value: &Value) -> String {
    let text = value.to_string();
    let trimmed = text.len() - text.trim_end_matches('}').len();
    "}".repeat(trimmed.saturating_sub(1))
}
