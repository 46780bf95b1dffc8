//! The guest's side of the host half's own services: see [`wire::service`](odyn_proto::wire::service).

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use odyn_proto::KmsEndpoint;
use odyn_proto::wire::service::{
    CREDENTIALS_PATH, CREDENTIALS_TYPE, KMS, MAX_CREDENTIALS, SERVICE,
};

use crate::client::{Client, authority_uri, outer_uri, read_body, request};
use crate::error::OpenError;
use crate::exchange::With;
use crate::io::LinkIo;
use crate::lane::Access;
use crate::pool::Class;

impl Client {
    /// Opens a TCP flow to an endpoint of KMS, which the host half looks up.
    ///
    /// # Errors
    /// As [`Client::connect_tcp`]; refused as prohibited when the host half takes it for no
    /// endpoint of KMS.
    pub async fn connect_kms(&self, endpoint: &KmsEndpoint) -> Result<LinkIo, OpenError> {
        let uri = authority_uri(&endpoint.authority())
            .map_err(|_| OpenError::Protocol("the endpoint is not a URI"))?;
        let mut request = request(Method::CONNECT, uri, None)?;
        request
            .headers_mut()
            .insert(SERVICE, HeaderValue::from_static(KMS));
        let busy = self.busy();
        let exchange = self.exchange(Class::Bulk, &request, With::Nothing).await?;
        Ok(LinkIo::new(self.program_stream(
            exchange,
            busy,
            Access::None,
        )))
    }

    /// Asks for the credentials of the host's machine, as JSON.
    ///
    /// # Errors
    /// When the host has none to give, or the link is or goes down.
    pub async fn credentials(&self) -> Result<Bytes, OpenError> {
        let request = request(Method::POST, outer_uri(CREDENTIALS_PATH)?, None)?;
        let mut exchange = self
            .exchange(Class::Quick, &request, With::Body(Bytes::new()))
            .await?;
        let declared = exchange.response.headers().get(header::CONTENT_TYPE);
        if declared.map(HeaderValue::as_bytes) != Some(CREDENTIALS_TYPE.as_bytes()) {
            return Err(OpenError::Protocol("the answer is not JSON"));
        }
        read_body(exchange.response.body_mut(), MAX_CREDENTIALS).await
    }
}
