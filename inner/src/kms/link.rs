//! Connects to KMS and gets credentials through the host.

use std::io;

use futures::future::BoxFuture;
use odyn_kms::credentials::{Credentials, CredentialsError, CredentialsSource};
use odyn_kms::proxy::{Dial, Io};
use odyn_proto::KmsEndpoint;

use crate::egress::KmsLink;

/// Opens connections to KMS through the host.
pub(super) struct HostDial(pub(super) KmsLink);

impl Dial for HostDial {
    fn dial(&self, endpoint: &KmsEndpoint) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let (link, endpoint) = (self.0.clone(), endpoint.clone());
        Box::pin(async move {
            let opened = link.connect(&endpoint).await;
            let io = opened
                .map_err(|error| io::Error::other(format!("{}: {error}", endpoint.authority())))?;
            Ok(Box::new(io) as Box<dyn Io>)
        })
    }
}

/// Gets the credentials of the host's instance.
pub(super) struct HostCredentials(pub(super) KmsLink);

impl CredentialsSource for HostCredentials {
    fn fetch(&self) -> BoxFuture<'_, Result<Credentials, CredentialsError>> {
        Box::pin(async move {
            let answer = self.0.credentials().await;
            let answer = answer.map_err(|error| CredentialsError(error.to_string()))?;
            Credentials::from_json(&answer)
        })
    }
}
