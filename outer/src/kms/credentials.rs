//! The credentials that guests get, and their source.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// How long one answer of the source serves all guests.
///
/// The metadata service limits its callers: a guest must not reach it with each of its requests.
const REUSE_INTERVAL: Duration = Duration::from_secs(20);
/// Longest wait for the source.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(10);

/// A source of credentials.
///
/// A trait, so that the simulator, which reads [`EnvironmentCredentials`], does not carry the
/// megabytes of the AWS SDK's chain.
pub trait HostCredentials: Debug + Send + Sync {
    /// Finds credentials. A source may return the same ones while they are valid.
    fn credentials(&self) -> future::ProvideCredentials<'_>;

    /// The region of the credentials. Called after [`HostCredentials::credentials`].
    fn region(&self) -> Option<String>;
}

/// Credentials in the environment of this process.
///
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, and `AWS_REGION` or
/// `AWS_DEFAULT_REGION`.
#[derive(Debug, Default)]
pub struct EnvironmentCredentials;

impl HostCredentials for EnvironmentCredentials {
    fn credentials(&self) -> future::ProvideCredentials<'_> {
        let id = set("AWS_ACCESS_KEY_ID").zip(set("AWS_SECRET_ACCESS_KEY"));
        let found = id.map(|(id, secret)| {
            AwsCredentials::new(id, secret, set("AWS_SESSION_TOKEN"), None, "environment")
        });
        future::ProvideCredentials::ready(found.ok_or_else(|| {
            CredentialsError::not_loaded(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set; \
                 `aws configure export-credentials --format env` prints those of a profile",
            )
        }))
    }

    fn region(&self) -> Option<String> {
        set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION"))
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Why a guest gets no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsUnavailable {
    /// The source has none. The SDK's errors say what is wrong in their sources only.
    #[error("found none: {}", with_causes(.0))]
    NotFound(#[source] CredentialsError),
    /// They do not fit into JSON.
    #[error("can't be written as JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// The source takes too long.
    #[error("found none in {} s", SOURCE_TIMEOUT.as_secs())]
    Timeout,
}

/// The credentials that were found last, as JSON.
#[derive(Default)]
pub(super) struct CachedCredentials(Mutex<Option<(Instant, Zeroizing<Vec<u8>>)>>);

impl Debug for CachedCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CachedCredentials(…)")
    }
}

/// The JSON that guests read (`odyn_kms::credentials`).
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialsAnswer<'a> {
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

impl CachedCredentials {
    /// The credentials as JSON.
    ///
    /// # Errors
    /// The source has none, or takes too long.
    pub(super) async fn get(
        &self,
        source: &dyn HostCredentials,
    ) -> Result<Bytes, CredentialsUnavailable> {
        let mut cached = self.0.lock().await;
        if let Some((since, json)) = cached.as_ref()
            && since.elapsed() < REUSE_INTERVAL
        {
            return Ok(Bytes::copy_from_slice(json));
        }
        let fetched = timeout(SOURCE_TIMEOUT, fetch(source)).await;
        let json = fetched.map_err(|_| CredentialsUnavailable::Timeout)??;
        let answer = Bytes::copy_from_slice(&json);
        *cached = Some((Instant::now(), json));
        Ok(answer)
    }
}

async fn fetch(source: &dyn HostCredentials) -> Result<Zeroizing<Vec<u8>>, CredentialsUnavailable> {
    let found = source.credentials().await;
    let found = found.map_err(CredentialsUnavailable::NotFound)?;
    let region = source.region();
    let since_epoch = |end: SystemTime| end.duration_since(SystemTime::UNIX_EPOCH).ok();
    let wire = CredentialsAnswer {
        access_key_id: found.access_key_id(),
        secret_access_key: found.secret_access_key(),
        token: found.session_token(),
        expiration: found
            .expiry()
            .and_then(since_epoch)
            .map(|end| end.as_secs()),
        region: region.as_deref(),
    };
    let json = serde_json::to_vec(&wire);
    let json = json.map_err(CredentialsUnavailable::Json)?;
    Ok(Zeroizing::new(json))
}

/// The error's text and those of all its sources.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
