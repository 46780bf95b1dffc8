//! The credentials that requests to KMS are signed with, refreshed before they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Time before expiry at which credentials are fetched again; AWS has new ones by then.
pub const REFRESH_BEFORE: Duration = Duration::from_secs(300);
/// Time after which credentials without an expiry are fetched again.
const RECHECK: Duration = Duration::from_secs(900);
/// Time between attempts, while the old credentials are valid.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Why there are no credentials.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no credentials: {0}")]
pub struct CredentialsError(pub String);

/// An access key. Its secret parts are not shown by `Debug`.
#[derive(Clone)]
pub struct Credentials {
    /// The public part.
    pub access_key_id: String,
    pub(crate) secret: Zeroizing<String>,
    pub(crate) token: Option<Zeroizing<String>>,
    /// The time of expiry.
    pub expires: Option<SystemTime>,
    /// The region of the instance, if the source knows it.
    pub region: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("expires", &self.expires)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// Credentials as JSON, as the host answers.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialsJson<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
}

impl Credentials {
    /// A pair of keys without an expiry.
    pub fn new(access_key_id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret: Zeroizing::new(secret.into()),
            token: None,
            expires: None,
            region: None,
        }
    }

    /// Reads `{"AccessKeyId", "SecretAccessKey", "Token"?, "Expiration"?, "Region"?}`.
    ///
    /// # Errors
    /// The text is malformed. The error repeats nothing of it.
    pub fn from_json(json: &[u8]) -> Result<Self, CredentialsError> {
        let unreadable = || CredentialsError("the host's answer cannot be read".into());
        // Secrets have no characters that JSON escapes, so they can be borrowed.
        let wire: CredentialsJson<'_> = serde_json::from_slice(json).map_err(|_| unreadable())?;
        if wire.access_key_id.is_empty() || wire.secret_access_key.is_empty() {
            return Err(unreadable());
        }
        let end = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Self {
            access_key_id: wire.access_key_id.to_owned(),
            secret: Zeroizing::new(wire.secret_access_key.to_owned()),
            token: wire.token.map(|token| Zeroizing::new(token.to_owned())),
            expires: wire.expiration.and_then(end),
            region: wire.region.map(str::to_owned),
        })
    }

    fn lasts(&self, now: SystemTime, more: Duration) -> bool {
        self.expires.is_none_or(|end| end > now + more)
    }
}

/// A source of credentials.
pub trait CredentialsSource: Send + Sync {
    /// Fetches credentials.
    fn fetch(&self) -> BoxFuture<'_, Result<Credentials, CredentialsError>>;
}

/// Keeps credentials. Callers that ask during a fetch wait for its answer.
pub struct CredentialsCache {
    source: Box<dyn CredentialsSource>,
    held: Mutex<Option<HeldCredentials>>,
}

struct HeldCredentials {
    credentials: Arc<Credentials>,
    /// The time until which the source is not asked.
    until: SystemTime,
}

impl std::fmt::Debug for CredentialsCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialsCache(…)")
    }
}

impl CredentialsCache {
    /// An empty cache.
    pub fn new(source: impl CredentialsSource + 'static) -> Self {
        Self {
            source: Box::new(source),
            held: Mutex::new(None),
        }
    }

    /// Returns valid credentials.
    ///
    /// # Errors
    /// There are none, and the source has none.
    pub async fn get(&self) -> Result<Arc<Credentials>, CredentialsError> {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|held| held.until > now) {
            return Ok(Arc::clone(&held.credentials));
        }
        match self.source.fetch().await {
            Ok(credentials) => {
                let credentials = Arc::new(credentials);
                tracing::info!(?credentials, "credentials for KMS");
                *held = Some(HeldCredentials {
                    until: look_again(&credentials, now),
                    credentials: Arc::clone(&credentials),
                });
                Ok(credentials)
            }
            Err(error) => {
                let old = held.as_mut();
                let Some(old) = old.filter(|old| old.credentials.lasts(now, Duration::ZERO)) else {
                    *held = None;
                    return Err(error);
                };
                tracing::warn!(%error, "credentials cannot be refreshed; the old ones are still valid");
                old.until = now + AFTER_FAILURE;
                Ok(Arc::clone(&old.credentials))
            }
        }
    }

    /// Drops credentials that KMS refused, so that the next call fetches others.
    pub async fn refuse(&self, refused: &Arc<Credentials>) {
        let mut held = self.held.lock().await;
        if held
            .as_ref()
            .is_some_and(|held| Arc::ptr_eq(&held.credentials, refused))
        {
            *held = None;
        }
    }
}

/// The time at which credentials are fetched again; at once for those that expire soon.
fn look_again(credentials: &Credentials, now: SystemTime) -> SystemTime {
    match credentials.expires {
        None => now + RECHECK,
        Some(end) => end.checked_sub(REFRESH_BEFORE).unwrap_or(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Credentials that last this many seconds, one set for each number.
    struct Fake(Arc<AtomicUsize>, Vec<Option<u64>>);

    impl CredentialsSource for Fake {
        fn fetch(&self) -> BoxFuture<'_, Result<Credentials, CredentialsError>> {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                let seconds = self.1.get(count).copied().flatten();
                let seconds = seconds.ok_or(CredentialsError("not today".into()))?;
                let mut credentials = Credentials::new(format!("AKIA{count}"), "hush");
                credentials.expires = Some(SystemTime::now() + Duration::from_secs(seconds));
                Ok(credentials)
            })
        }
    }

    fn cache(lasting: &[Option<u64>]) -> (CredentialsCache, Arc<AtomicUsize>) {
        let count = Arc::default();
        let fake = Fake(Arc::clone(&count), lasting.to_vec());
        (CredentialsCache::new(fake), count)
    }

    #[tokio::test]
    async fn credentials_are_kept_until_shortly_before_their_end() {
        let (cache, count) = cache(&[Some(301), Some(3600)]);
        for _ in 0..3 {
            assert_eq!(cache.get().await.expect("some").access_key_id, "AKIA0");
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
        for _ in 0..3 {
            assert_eq!(cache.get().await.expect("some").access_key_id, "AKIA1");
        }
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn old_ones_do_until_their_end_when_there_are_no_new_ones() {
        let (cache, count) = cache(&[Some(2), None, None]);
        assert_eq!(cache.get().await.expect("some").access_key_id, "AKIA0");
        for _ in 0..3 {
            assert_eq!(cache.get().await.expect("old").access_key_id, "AKIA0");
        }
        assert_eq!(count.load(Ordering::Relaxed), 2, "no attempt for each");
    }

    #[tokio::test]
    async fn none_at_all_is_an_error_each_time_anew() {
        let (cache, _) = cache(&[None, Some(3600)]);
        let error = cache.get().await.expect_err("none");
        assert!(error.to_string().contains("not today"), "{error}");
        cache.get().await.expect("now there are");
    }

    #[tokio::test]
    async fn refused_ones_are_replaced_once() {
        let (cache, count) = cache(&[Some(3600), Some(3600)]);
        let old = cache.get().await.expect("some");
        cache.refuse(&old).await;
        cache.get().await.expect("new ones");
        cache.refuse(&old).await;
        cache.get().await.expect("the same");
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_answer_of_the_host_is_read_and_never_shown() {
        let json = br#"{"AccessKeyId":"AKIA","SecretAccessKey":"hush","Token":"long","Expiration":99,"Region":"eu-west-1"}"#;
        let read = Credentials::from_json(json).expect("read");
        assert_eq!(
            read.expires,
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(99))
        );
        let shown = format!("{read:?}");
        assert!(
            !shown.contains("hush") && !shown.contains("long"),
            "{shown}"
        );
        for json in [
            &b"{}"[..],
            b"",
            br#"{"AccessKeyId":"A","SecretAccessKey":""}"#,
        ] {
            let error = Credentials::from_json(json).expect_err("unreadable");
            assert!(!error.to_string().contains("Access"));
        }
    }
}
