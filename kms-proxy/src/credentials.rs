//! The credentials that requests to KMS are signed with, refreshed before they expire.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Credentials are fetched again when they expire in less than this. AWS has new ones ready that early.
pub const REFRESH_BEFORE: Duration = Duration::from_secs(300);
/// Those that say no end are looked at again after this: the host may have others by then.
const RECHECK: Duration = Duration::from_secs(900);
/// After a failure, with credentials that are still good, this passes until the next attempt.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Why there are none.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no credentials: {0}")]
pub struct NoCredentials(pub String);

/// An access key. Its secret parts are not shown by `Debug`.
#[derive(Clone)]
pub struct Credentials {
    /// The public part.
    pub access_key_id: String,
    pub(crate) secret: Zeroizing<String>,
    pub(crate) token: Option<Zeroizing<String>>,
    /// When they stop to be valid.
    pub expires: Option<SystemTime>,
    /// The region of the instance, if whoever gave them knows.
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

/// Credentials as JSON: what the host half answers.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
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
    /// A pair of keys without an end.
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
    /// What is wrong, without any of the text.
    pub fn from_json(json: &[u8]) -> Result<Self, NoCredentials> {
        let unreadable = || NoCredentials("the host half's answer cannot be read".into());
        // Secrets are of characters that JSON does not escape, so they can be borrowed.
        let wire: Wire<'_> = serde_json::from_slice(json).map_err(|_| unreadable())?;
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

/// Where credentials come from.
pub trait Source: Send + Sync {
    /// Fetches them.
    fn fetch(&self) -> BoxFuture<'_, Result<Credentials, NoCredentials>>;
}

/// Keeps credentials. Whoever asks while they are being fetched waits for the same answer.
pub struct Cache {
    source: Box<dyn Source>,
    held: Mutex<Option<Held>>,
}

struct Held {
    credentials: Arc<Credentials>,
    /// Until then nobody is asked.
    until: SystemTime,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache(…)")
    }
}

impl Cache {
    /// An empty cache.
    pub fn new(source: impl Source + 'static) -> Self {
        Self {
            source: Box::new(source),
            held: Mutex::new(None),
        }
    }

    /// Credentials that are valid.
    ///
    /// # Errors
    /// There are none, and none can be had.
    pub async fn get(&self) -> Result<Arc<Credentials>, NoCredentials> {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        if let Some(held) = held.as_ref().filter(|held| held.until > now) {
            return Ok(Arc::clone(&held.credentials));
        }
        match self.source.fetch().await {
            Ok(credentials) => {
                let credentials = Arc::new(credentials);
                tracing::info!(?credentials, "credentials for KMS");
                *held = Some(Held {
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
                tracing::warn!(%error, "credentials cannot be refreshed; the old ones are still good");
                old.until = now + AFTER_FAILURE;
                Ok(Arc::clone(&old.credentials))
            }
        }
    }

    /// KMS says that these are not good any more: fetches others next time.
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

/// When credentials are to be fetched again: those that end soon already, at once.
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

    /// Gives credentials that last so many seconds, one set for each number.
    struct Fake(Arc<AtomicUsize>, Vec<Option<u64>>);

    impl Source for Fake {
        fn fetch(&self) -> BoxFuture<'_, Result<Credentials, NoCredentials>> {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                let seconds = self.1.get(count).copied().flatten();
                let seconds = seconds.ok_or(NoCredentials("not today".into()))?;
                let mut credentials = Credentials::new(format!("AKIA{count}"), "hush");
                credentials.expires = Some(SystemTime::now() + Duration::from_secs(seconds));
                Ok(credentials)
            })
        }
    }

    fn cache(lasting: &[Option<u64>]) -> (Cache, Arc<AtomicUsize>) {
        let count = Arc::default();
        let fake = Fake(Arc::clone(&count), lasting.to_vec());
        (Cache::new(fake), count)
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
