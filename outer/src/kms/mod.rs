//! What guests need for KMS: a way to its endpoints, and the credentials of this machine.
//!
//! TLS to KMS ends in the guest, so all that is done here is to look a name up, to dial it, and to
//! hand out credentials. A guest needs no rule of its policy for it; the operator may forbid it.

mod credentials;
mod endpoint_names;
mod lookup;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use odyn_proto::{KmsEndpoint, Refusal};
use tokio::net::TcpStream;
use tracing::warn;

use crate::dial;
use crate::resolver::LookupShare;
use crate::runtime_config::Rules;

pub use credentials::{CredentialsSource, EnvironmentCredentials};

/// What guests may have of KMS: nothing, or a way to it and credentials.
#[derive(Debug, Default)]
pub struct Kms {
    /// `None`: neither credentials nor a way.
    source: Option<Arc<dyn CredentialsSource>>,
    /// Endpoints that are not AWS' own.
    others: Vec<KmsEndpoint>,
    cached: credentials::CachedCredentials,
}

impl Kms {
    /// A way to AWS' endpoints, and credentials from `source`.
    pub fn with(source: impl CredentialsSource + 'static) -> Self {
        Self {
            source: Some(Arc::new(source)),
            ..Self::default()
        }
    }

    /// Endpoints to let guests reach beside AWS' own: those of a VPC with private DNS names, or a
    /// stand-in.
    pub fn endpoints(mut self, others: impl IntoIterator<Item = KmsEndpoint>) -> Self {
        self.others.extend(others);
        self
    }

    /// Dials an endpoint.
    ///
    /// # Errors
    /// It is none of KMS, its name does not resolve to anything that the operator lets guests
    /// reach, or it does not answer.
    pub(crate) async fn connect(
        &self,
        endpoint: &KmsEndpoint,
        rules: &Rules,
        share: &LookupShare,
    ) -> Result<(TcpStream, SocketAddr), Refusal> {
        let is_other = self.others.contains(endpoint);
        let name = endpoint.name().as_str();
        let is_kms = endpoint.port() == KmsEndpoint::HTTPS && endpoint_names::is_kms(name);
        if self.source.is_none() || !(is_other || is_kms) {
            return Err(Refusal::Prohibited);
        }
        let found = lookup::addresses(&rules.resolver, name, share).await?;
        let candidates: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| rules.limits.permit(*address))
            // Whoever answers DNS does not get to turn this way to the machine itself.
            .filter(|address| is_other || !is_near(*address))
            .map(|address| SocketAddr::new(address, endpoint.port().get()))
            .collect();
        if candidates.is_empty() {
            return Err(Refusal::Prohibited);
        }
        dial::tcp(&candidates, rules.connect_timeout).await
    }

    /// The credentials of this machine, as JSON.
    ///
    /// # Errors
    /// There are none, or the operator does not give them to guests.
    pub(crate) async fn credentials(&self) -> Result<Bytes, Refusal> {
        let source = self.source.as_deref().ok_or(Refusal::Prohibited)?;
        self.cached.get(source).await.map_err(|error| {
            warn!(%error, "no credentials for a guest");
            Refusal::Internal
        })
    }
}

/// Loopback and link-local addresses, among them the metadata service.
fn is_near(address: std::net::IpAddr) -> bool {
    match address.to_canonical() {
        std::net::IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        std::net::IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()
        }
    }
}
