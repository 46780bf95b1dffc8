//! The host's first request on a reversed connection.

use http::{HeaderMap, Method, Request, StatusCode};
use odyn_proto::identity;
use odyn_proto::wire::ingress;
use odyn_proto::wire::ingress::{Incoming, IngressHello};
use tokio::time::timeout;

use crate::config::Tuning;
use crate::drain::flush;
use crate::drain::flush::DeferredFlush;
use crate::error::{LinkError, PeerMisbehaved};
use crate::http2::message::{GUEST, authority_uri, path_uri, plain_request};
use crate::http2::open::{OpenedConnection, handshake};
use crate::transport::stream::Transport;

/// A reversed connection whose guest has sent its identity.
pub struct GreetedGuest {
    pub(crate) opened: OpenedConnection,
    hello: IngressHello,
    pub(crate) deferred: Vec<DeferredFlush>,
}

impl std::fmt::Debug for GreetedGuest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GreetedGuest")
            .field("hello", &self.hello)
            .finish_non_exhaustive()
    }
}

impl GreetedGuest {
    /// The guest's identity and ports.
    pub fn hello(&self) -> &IngressHello {
        &self.hello
    }
}

/// Starts HTTP/2 on a reversed connection, and asks the guest for its identity and ports.
///
/// # Errors
/// When the transport fails, or the answer is late or malformed.
pub async fn greet_guest(transport: Transport, tuning: &Tuning) -> Result<GreetedGuest, LinkError> {
    let limit = tuning.handshake_timeout;
    timeout(limit, ask(transport, tuning))
        .await
        .map_err(|_| LinkError::Handshake(limit))?
}

async fn ask(transport: Transport, tuning: &Tuning) -> Result<GreetedGuest, LinkError> {
    let mut opened = handshake(transport, tuning).await?;
    let uri = path_uri(GUEST, ingress::PATH)?;
    let request = plain_request(Method::GET, uri);
    let requests = opened.requests.clone();
    let answer = async {
        let mut requests = requests.ready().await?;
        let (response, _) = requests.send_request(request, true)?;
        // Sent now, since a guest that drains takes no more requests.
        let mut deferred = Vec::new();
        for _ in 0..flush::DEFERRED_FLUSHES {
            requests = requests.ready().await?;
            deferred.push(DeferredFlush::send(&mut requests)?);
        }
        Ok::<_, LinkError>((response.await?, deferred))
    };
    let (response, deferred) = tokio::select! {
        answer = answer => answer?,
        ended = &mut opened.driver.connection => {
            ended?;
            return Err(PeerMisbehaved::ClosedAtOnce.into());
        }
    };
    if response.status() != StatusCode::OK {
        return Err(PeerMisbehaved::NoIdentity.into());
    }
    let headers = response.headers();
    let value = |name| headers.get(name).map(http::HeaderValue::as_bytes);
    let hello = ingress::parse_hello(
        value(identity::GUEST),
        value(identity::RUN),
        value(ingress::PORTS),
    )
    .map_err(LinkError::Ingress)?;
    Ok(GreetedGuest {
        opened,
        hello,
        deferred,
    })
}

/// The request for a client's connection.
///
/// # Errors
/// Never: every address is a header.
pub(crate) fn ingress_request(incoming: &Incoming) -> Result<Request<()>, http::Error> {
    let uri = authority_uri(&ingress::write_authority(incoming.port))?;
    let mut request = plain_request(Method::CONNECT, uri);
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(ingress::CLIENT, incoming.client.to_string().try_into()?);
    headers.insert(ingress::LOCAL, incoming.local.to_string().try_into()?);
    Ok(request)
}
