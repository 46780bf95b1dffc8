//! The proxy between the app's SDK and KMS: HTTP/1.1 on the guest's loopback.
//!
//! ```text
//! SDK ──▶ signature checked against the app's dummy credentials
//!         the five attesting actions: + Recipient (attestation document with the public key)
//!         signed with the instance's credentials, for the region of the caller's signature
//!         ──▶ TLS ──▶ KMS
//!         the five attesting actions: CiphertextForRecipient opened, the member that KMS left
//!         empty filled, as if KMS had answered plaintext
//! SDK ◀── everything else byte for byte: members, errors, statuses
//! ```

mod actions;
mod answer;
mod endpoints;
mod exchange;
mod fields;
mod recipient;
mod retry;
mod serve;
mod upstream;

pub use actions::Demands;
pub use endpoints::Endpoints;
pub use serve::serve;
pub use upstream::{ANSWER_TIMEOUT, Dial, Io};

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;

use crate::attest::Module;
use crate::credentials::{Credentials, CredentialsCache};
use recipient::Recipient;
use retry::Quota;
use upstream::KmsUpstream;

/// The parts of a proxy.
pub struct ProxyParts {
    /// Makes attestation documents.
    pub module: Arc<dyn Module>,
    /// Makes connections to KMS.
    pub dial: Arc<dyn Dial>,
    /// The instance's credentials.
    pub credentials: CredentialsCache,
    /// The dummy credentials that only the app has.
    pub app: Credentials,
    /// The endpoints of KMS.
    pub endpoints: Endpoints,
    /// The demands of the policy.
    pub demands: Demands,
    /// The authorities that may sign certificates of KMS; see [`web_roots`].
    pub roots: RootCertStore,
    /// How long KMS may take to answer; usually [`ANSWER_TIMEOUT`].
    pub answer_timeout: Duration,
}

/// Mozilla's web roots, built in.
pub fn web_roots() -> RootCertStore {
    RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned())
}

/// A proxy.
pub struct Proxy {
    recipient: Recipient,
    upstream: KmsUpstream,
    credentials: CredentialsCache,
    app: Credentials,
    endpoints: Endpoints,
    demands: Demands,
    quota: Quota,
    clock: Clock,
}

impl Proxy {
    /// Makes a proxy, which answers requests once it is [served](serve()).
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(parts: ProxyParts) -> Result<Self, rustls::Error> {
        Ok(Self {
            recipient: Recipient::new(parts.module),
            upstream: KmsUpstream::new(parts.dial, parts.roots, parts.answer_timeout)?,
            credentials: parts.credentials,
            app: parts.app,
            endpoints: parts.endpoints,
            demands: parts.demands,
            quota: Quota::default(),
            clock: Clock::default(),
        })
    }

    /// Makes the RSA key before the first request needs it.
    pub async fn warm_up(&self) {
        let started = std::time::Instant::now();
        match self.recipient.key().await {
            Ok(_) => tracing::info!(took = ?started.elapsed(), "key for KMS is ready"),
            Err(error) => tracing::warn!(%error, "no key for KMS yet"),
        }
    }
}

/// The time of KMS. It differs from the guest's once KMS has said that the clock is wrong.
#[derive(Debug, Default)]
struct Clock {
    /// Seconds by which KMS is ahead.
    offset: AtomicI64,
}

impl Clock {
    fn now(&self) -> SystemTime {
        let offset = self.offset.load(Ordering::Relaxed);
        let by = Duration::from_secs(offset.unsigned_abs());
        let now = SystemTime::now();
        let moved = match offset >= 0 {
            true => now.checked_add(by),
            false => now.checked_sub(by),
        };
        moved.unwrap_or(now)
    }

    /// Sets the clock by an answer of KMS, which TLS has authenticated.
    ///
    /// Returns whether the change matters for a signature.
    fn set(&self, theirs: SystemTime) -> bool {
        let now = SystemTime::now();
        let offset = match theirs.duration_since(now) {
            Ok(ahead) => i64::try_from(ahead.as_secs()).unwrap_or(0),
            Err(behind) => -i64::try_from(behind.duration().as_secs()).unwrap_or(0),
        };
        let old = self.offset.swap(offset, Ordering::Relaxed);
        offset.abs_diff(old) > 60
    }
}
