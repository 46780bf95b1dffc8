//! AWS KMS for guests: connections to its endpoints, and the credentials of this machine.
//!
//! TLS to KMS ends in the guest: the host looks up a name, dials it, and hands out credentials. A
//! guest needs no policy rule for this; the operator may forbid it.

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

pub use credentials::{EnvironmentCredentials, HostCredentials};

/// What guests get of KMS: nothing, or connections and credentials.
#[derive(Debug, Default)]
pub struct Kms {
    /// `None`: neither connections nor credentials.
    source: Option<Arc<dyn HostCredentials>>,
    /// Endpoints beside those of AWS.
    others: Vec<KmsEndpoint>,
    cached: credentials::CachedCredentials,
}

impl Kms {
    /// Connections to the endpoints of AWS, and credentials from `source`.
    pub fn with(source: impl HostCredentials + 'static) -> Self {
        Self {
            source: Some(Arc::new(source)),
            ..Self::default()
        }
    }

    /// Adds endpoints beside those of AWS: of a VPC with private DNS names, or of a stand-in.
    pub fn endpoints(mut self, others: impl IntoIterator<Item = KmsEndpoint>) -> Self {
        self.others.extend(others);
        self
    }

    /// Dials an endpoint.
    ///
    /// # Errors
    /// It is no endpoint of KMS, its name resolves to no address that guests may reach, or it does
    /// not answer.
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
            // A forged DNS answer must not lead to this machine or to the metadata service.
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
    /// None were found, or the operator gives guests none.
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
