//! Retries as in the SDKs' standard mode.
//!
//! That is three attempts, exponential back-off with jitter, and a quota that ends retries when
//! most requests fail.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::StatusCode;

use super::fields::JsonFields;

/// Attempts of a request, the first included.
pub(super) const ATTEMPTS: u32 = 3;
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// Tokens of the quota at the start, which is also the maximum.
const TOKENS: i64 = 500;
/// Tokens that a retry costs, and a retry after a time-out.
const COST: i64 = 5;
const COST_TIMEOUT: i64 = 10;

/// Codes of errors by which KMS throttles.
const THROTTLING: [&str; 10] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
];
/// Codes of transient errors.
const TRANSIENT: [&str; 4] = [
    "DependencyTimeoutException",
    "InternalError",
    "RequestTimeout",
    "RequestTimeoutException",
];
/// Codes of a signature whose time is wrong.
const SKEWED: [&str; 7] = [
    "AuthFailure",
    "IncompleteSignature",
    "InvalidSignatureException",
    "RequestExpired",
    "RequestInTheFuture",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
];
/// Codes of expired credentials.
const STALE: [&str; 3] = [
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
];

/// The next step after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Forward the answer.
    Take,
    /// Try again, after a pause.
    Again,
    /// Try again with the time of the answer.
    Clock,
    /// Try again with other credentials.
    Credentials,
}

/// The next step after this answer of KMS.
pub(super) fn advice(status: StatusCode, body: &[u8]) -> Advice {
    if status.is_success() {
        return Advice::Take;
    }
    let code = code(body);
    let is = |codes: &[&str]| code.as_deref().is_some_and(|code| codes.contains(&code));
    let is_transient = [500, 502, 503, 504].contains(&status.as_u16());
    if is(&STALE) {
        Advice::Credentials
    } else if is(&SKEWED) {
        Advice::Clock
    } else if is_transient || status.as_u16() == 429 || is(&THROTTLING) || is(&TRANSIENT) {
        Advice::Again
    } else {
        Advice::Take
    }
}

/// The type of an error: `__type`, perhaps with a namespace before it.
fn code(body: &[u8]) -> Option<String> {
    let text = JsonFields::parse(body)?.text("__type")?;
    Some(text.rsplit('#').next().unwrap_or_default().to_owned())
}

/// The quota of all requests together.
#[derive(Debug)]
pub(super) struct Quota(AtomicI64);

impl Default for Quota {
    fn default() -> Self {
        Self(AtomicI64::new(TOKENS))
    }
}

impl Quota {
    /// Takes the cost of a retry, if the quota has it. A success gives the cost back.
    pub(super) fn take(&self, timed_out: bool) -> Option<i64> {
        let cost = if timed_out { COST_TIMEOUT } else { COST };
        let take = |tokens: i64| (tokens >= cost).then_some(tokens - cost);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok().then_some(cost)
    }

    /// Records the success of a request, on the first attempt or by a retry of this cost.
    pub(super) fn give(&self, cost: Option<i64>) {
        let give = |tokens: i64| Some((tokens + cost.unwrap_or(1)).min(TOKENS));
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
    }
}

/// The pause before attempt number `next`, which is 2 or more.
pub(super) fn pause(next: u32) -> Duration {
    let mut random = [0; 4];
    // Without random numbers the pause has no jitter.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let fraction = f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX);
    let seconds = fraction * f64::from(1u32 << next.saturating_sub(2).min(10));
    Duration::from_secs_f64(seconds).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_status_and_code() {
        let judge = |status, code: &str| {
            let body = format!(r#"{{"__type":"{code}","message":"x"}}"#);
            advice(
                StatusCode::from_u16(status).expect("a status"),
                body.as_bytes(),
            )
        };
        assert_eq!(judge(400, "AccessDeniedException"), Advice::Take);
        assert_eq!(
            judge(400, "com.amazonaws.kms#ThrottlingException"),
            Advice::Again
        );
        assert_eq!(judge(500, "KMSInternalException"), Advice::Again);
        assert_eq!(judge(403, "InvalidSignatureException"), Advice::Clock);
        assert_eq!(judge(400, "ExpiredTokenException"), Advice::Credentials);
        assert_eq!(advice(StatusCode::BAD_GATEWAY, b"<html>"), Advice::Again);
        assert_eq!(advice(StatusCode::FORBIDDEN, b"<html>"), Advice::Take);
        assert_eq!(advice(StatusCode::OK, b"{"), Advice::Take);
    }

    #[test]
    fn the_quota_ends_retries_when_most_requests_fail() {
        let quota = Quota::default();
        let retries = std::iter::from_fn(|| quota.take(false)).count();
        assert_eq!(retries, 100);
        quota.give(None);
        assert_eq!(quota.take(false), None);
        quota.give(Some(COST));
        assert!(quota.take(false).is_some());
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        for _ in 0..100 {
            assert!(pause(2) <= Duration::from_secs(1));
            assert!(pause(3) <= Duration::from_secs(2));
            assert!(pause(40) <= MAX_PAUSE);
        }
    }
}
