//! Requests and answers: their addresses, their bodies, and refusals.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use odyn_proto::Refusal;
use odyn_proto::wire::authority::CANDIDATES;
use odyn_proto::wire::proxy_status;

use crate::error::{OpenError, PeerMisbehaved};
use crate::http2::chunk::{Chunk, InFlight};

/// Authority of requests to the guest itself.
pub(crate) const GUEST: &str = "guest";

/// Authority of requests to the host itself.
pub(crate) const HOST: &str = "enclaver-outer";

/// Path of DNS messages.
pub(crate) const DNS_PATH: &str = "/dns-query";

/// Media type of DNS messages (RFC 8484).
pub(crate) const DNS_TYPE: &str = "application/dns-message";

/// Longest DNS message, in bytes.
pub(crate) const MAX_DNS: usize = 65_535;

pub(crate) fn host_uri(path: &str) -> Result<Uri, OpenError> {
    Ok(path_uri(HOST, path)?)
}

/// The URI of a request to the peer itself.
pub(crate) fn path_uri(authority: &'static str, path: &str) -> Result<Uri, http::Error> {
    Uri::builder()
        .scheme("http")
        .authority(Authority::from_static(authority))
        .path_and_query(path)
        .build()
}

/// The URI of a CONNECT request.
pub(crate) fn authority_uri(authority: &str) -> Result<Uri, http::Error> {
    Uri::builder().authority(authority).build()
}

/// A request without headers.
pub(crate) fn plain_request(method: Method, uri: Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    request
}

pub(crate) fn request_for(
    method: Method,
    uri: Uri,
    candidates: Option<String>,
) -> Result<Request<()>, OpenError> {
    let mut request = plain_request(method, uri);
    if let Some(list) = candidates {
        let value = HeaderValue::try_from(list).map_err(http::Error::from)?;
        request.headers_mut().insert(CANDIDATES.clone(), value);
    }
    Ok(request)
}

/// Reads a whole DNS message.
pub(crate) async fn read_message(body: &mut RecvStream) -> Result<Bytes, OpenError> {
    read_body(body, MAX_DNS).await
}

/// Reads a body of at most `most` bytes.
pub(crate) async fn read_body(body: &mut RecvStream, most: usize) -> Result<Bytes, OpenError> {
    let mut message = BytesMut::new();
    loop {
        match poll_fn(|cx| match body.poll_data(cx) {
            Poll::Ready(item) => Poll::Ready(item.transpose()),
            Poll::Pending => Poll::Pending,
        })
        .await
        {
            Ok(None) => return Ok(message.freeze()),
            Ok(Some(bytes)) => {
                let _ = body.flow_control().release_capacity(bytes.len());
                if message.len() + bytes.len() > most {
                    return Err(OpenError::TooLong(message.len() + bytes.len()));
                }
                message.extend_from_slice(&bytes);
            }
            Err(error) if error.is_reset() => {
                return Err(PeerMisbehaved::MessageReset.into());
            }
            Err(_) => return Err(OpenError::LinkLost),
        }
    }
}

/// Answers with a message, and waits until h2 has written it.
pub(crate) async fn send_message(
    respond: &mut SendResponse<Chunk>,
    kind: &'static str,
    message: Bytes,
) {
    let mut response = Response::new(());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(mut send) = respond.send_response(response, false) {
        let in_flight = Arc::new(InFlight::default());
        if send.send_data(in_flight.chunk(message), true).is_ok() {
            in_flight.empty().await;
        }
    }
}

/// Answers with a refusal.
pub(crate) fn refuse(respond: &mut SendResponse<Chunk>, refusal: Refusal) {
    let mut response = Response::new(());
    *response.status_mut() = refusal.status();
    if let Ok(value) = HeaderValue::try_from(proxy_status::write_error(refusal)) {
        response
            .headers_mut()
            .insert(proxy_status::HEADER.clone(), value);
    }
    debug_assert_ne!(response.status(), StatusCode::OK);
    // It fails when the peer has reset the request meanwhile.
    let _ = respond.send_response(response, true);
}
