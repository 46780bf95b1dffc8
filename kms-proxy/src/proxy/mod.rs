//! The endpoint that the program's SDK talks to: HTTP/1.1 on the guest's loopback.
//!
//! ```text
//! SDK ──▶ signature of the program's dummy credentials: right?
//!         the five attesting actions: + Recipient (attestation document with our public key)
//!         signed with the instance's credentials, for the region of the caller's signature
//!         ──▶ TLS ──▶ KMS
//!         the five attesting actions: CiphertextForRecipient opened, the member that KMS left
//!         empty filled, as if KMS had answered plaintext
//! SDK ◀── all else byte for byte: members, errors, statuses
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
use crate::credentials::{Cache, Credentials};
use recipient::Recipient;
use retry::Quota;
use upstream::Upstream;

/// What a proxy is made of.
pub struct Parts {
    /// Makes attestation documents.
    pub module: Arc<dyn Module>,
    /// Makes connections to KMS.
    pub dial: Arc<dyn Dial>,
    /// The instance's credentials.
    pub credentials: Cache,
    /// The dummy credentials that the program alone has.
    pub program: Credentials,
    /// Where KMS is.
    pub endpoints: Endpoints,
    /// What the policy demands.
    pub demands: Demands,
    /// Who may vouch for KMS; see [`web_roots`].
    pub roots: RootCertStore,
    /// How long KMS may take to answer: [`ANSWER_TIMEOUT`], as a rule.
    pub answer_timeout: Duration,
}

/// The roots of the web, as Mozilla trusts them, baked in.
pub fn web_roots() -> RootCertStore {
    RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned())
}

/// A proxy.
pub struct Proxy {
    recipient: Recipient,
    upstream: Upstream,
    credentials: Cache,
    program: Credentials,
    endpoints: Endpoints,
    demands: Demands,
    quota: Quota,
    clock: Clock,
}

impl Proxy {
    /// Puts a proxy together. It does nothing before it is [served](serve).
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(parts: Parts) -> Result<Self, rustls::Error> {
        Ok(Self {
            recipient: Recipient::new(parts.module),
            upstream: Upstream::new(parts.dial, parts.roots, parts.answer_timeout)?,
            credentials: parts.credentials,
            program: parts.program,
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
            Ok(_) => tracing::info!(took = ?started.elapsed(), "key for KMS made"),
            Err(error) => tracing::warn!(%error, "no key for KMS yet"),
        }
    }
}

/// The time at KMS, as far as it has said that ours is wrong.
#[derive(Debug, Default)]
struct Clock {
    /// Seconds that KMS is ahead.
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

    /// Sets the clock by an answer, whose sender TLS has proved. Says whether that is a change that
    /// matters to a signature.
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
