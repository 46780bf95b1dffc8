//! The credentials of this machine, by the AWS SDK's own chain: environment, profile, web identity,
//! container, instance profile (IMDSv2).

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// How long one answer is given to everybody who asks: a guest that asks all the time does not reach
/// the metadata service with it, which is limited.
const REUSE: Duration = Duration::from_secs(20);
/// How long the chain may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCredentials {
    #[error("the AWS credential chain found none: {0}")]
    Chain(String),
    #[error("the AWS credential chain took more than {} s", PATIENCE.as_secs())]
    Slow,
}

/// The chain, made when it is first needed: on machines that never serve KMS it costs nothing.
#[derive(Default)]
pub(super) struct Credentials {
    chain: OnceCell<SdkConfig>,
    held: Mutex<Option<(Instant, Zeroizing<Vec<u8>>)>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// As guests read it: `odyn_kms::credentials`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
}

impl Credentials {
    /// The credentials as JSON.
    ///
    /// # Errors
    /// There are none.
    pub(super) async fn get(&self) -> Result<Bytes, NoCredentials> {
        let mut held = self.held.lock().await;
        if let Some((since, json)) = held.as_ref()
            && since.elapsed() < REUSE
        {
            return Ok(Bytes::copy_from_slice(json));
        }
        let fetched = timeout(PATIENCE, self.fetch()).await;
        let json = fetched.map_err(|_| NoCredentials::Slow)??;
        let answer = Bytes::copy_from_slice(&json);
        *held = Some((Instant::now(), json));
        Ok(answer)
    }

    async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, NoCredentials> {
        let none = |text: &dyn std::fmt::Display| NoCredentials::Chain(text.to_string());
        let config = self.chain.get_or_init(load).await;
        let provider = config.credentials_provider();
        let provider = provider.ok_or_else(|| none(&"no provider"))?;
        let found = provider.provide_credentials().await;
        let found = found.map_err(|error| none(&error))?;
        let since_epoch = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).ok();
        let wire = Wire {
            access_key_id: found.access_key_id(),
            secret_access_key: found.secret_access_key(),
            token: found.session_token(),
            expiration: found
                .expiry()
                .and_then(since_epoch)
                .map(|end| end.as_secs()),
            region: config.region().map(Region::as_ref),
        };
        let json = serde_json::to_vec(&wire).map_err(|error| none(&error))?;
        Ok(Zeroizing::new(json))
    }
}

async fn load() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .load()
        .await
}
