//! The host's side: the first request on a reversed connection.

use http::{HeaderMap, Method, Request, StatusCode};
use odyn_proto::identity;
use odyn_proto::wire::ingress;
use odyn_proto::wire::ingress::{Hello, Incoming};
use tokio::time::timeout;

use crate::client::{authority_uri, path_uri, plain_request};
use crate::config::ClientConfig;
use crate::error::LinkError;
use crate::flush;
use crate::flush::Parked;
use crate::pool::connection::{Opened, handshake};
use crate::transport::Transport;

/// Authority of the requests that are not for a client.
const GUEST: &str = "guest";

/// A reversed connection whose guest has said who it is.
pub struct Greeted {
    pub(crate) opened: Opened,
    hello: Hello,
    pub(crate) parked: Vec<Parked>,
}

impl std::fmt::Debug for Greeted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Greeted")
            .field("hello", &self.hello)
            .finish_non_exhaustive()
    }
}

impl Greeted {
    /// What the guest has said.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }
}

/// Starts HTTP/2 on a reversed connection, and asks the guest who it is and what it wants.
///
/// # Errors
/// When the transport fails, or the answer does not come in time or is none.
pub async fn greet(transport: Transport, config: &ClientConfig) -> Result<Greeted, LinkError> {
    let limit = config.tuning.handshake_timeout;
    timeout(limit, ask(transport, config))
        .await
        .map_err(|_| LinkError::Handshake(limit))?
}

async fn ask(transport: Transport, config: &ClientConfig) -> Result<Greeted, LinkError> {
    let mut opened = handshake(transport, config).await?;
    let uri = path_uri(GUEST, ingress::PATH).map_err(|_| LinkError::Protocol("no URI"))?;
    let request = plain_request(Method::GET, uri);
    let requests = opened.requests.clone();
    let answer = async {
        let mut requests = requests.ready().await?;
        let (response, _) = requests.send_request(request, true)?;
        // Now, because a guest that drains takes no more requests.
        let mut parked = Vec::new();
        for _ in 0..flush::PARKED {
            requests = requests.ready().await?;
            parked.push(Parked::park(&mut requests)?);
        }
        Ok::<_, LinkError>((response.await?, parked))
    };
    let (response, parked) = tokio::select! {
        answer = answer => answer?,
        ended = &mut opened.driver => {
            ended?;
            return Err(LinkError::Protocol("the guest closed the connection at once"));
        }
    };
    if response.status() != StatusCode::OK {
        return Err(LinkError::Protocol("the guest does not say who it is"));
    }
    let headers = response.headers();
    let value = |name| headers.get(name).map(http::HeaderValue::as_bytes);
    let hello = ingress::parse_hello(
        value(identity::GUEST),
        value(identity::RUN),
        value(ingress::PORTS),
    )
    .map_err(LinkError::Ingress)?;
    Ok(Greeted {
        opened,
        hello,
        parked,
    })
}

/// The request for a client's connection.
///
/// # Errors
/// Never: every address is a header.
pub(crate) fn request(incoming: &Incoming) -> Result<Request<()>, http::Error> {
    let uri = authority_uri(&ingress::write_authority(incoming.port))?;
    let mut request = plain_request(Method::CONNECT, uri);
    let headers: &mut HeaderMap = request.headers_mut();
    headers.insert(ingress::CLIENT, incoming.client.to_string().try_into()?);
    headers.insert(ingress::LOCAL, incoming.local.to_string().try_into()?);
    Ok(request)
}
