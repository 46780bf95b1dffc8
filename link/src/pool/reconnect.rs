//! Dials and replaces the connections of a pool.
//!
//! Each place in the pool has a task that dials, publishes the connection, and drives it until it
//! ends or the host takes no more flows (GOAWAY). Then the task dials again at once, while the old
//! connection is driven until its last flow has ended.

use std::sync::Arc;
use std::time::Duration;

use odyn_proto::Endpoint;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::error::{DialError, LinkError};
use crate::http2::open::{OpenedConnection, open as http2_open};
use crate::pool::Pool;
use crate::pool::driver::drive;
use crate::pool::jitter::Jitter;
use crate::transport::dial::dial;

/// A connection that ended sooner than this was no success. The guest dials a host that accepts and
/// drops connections as seldom as one that is away.
const MIN_STABLE_TIME: Duration = Duration::from_secs(1);

/// Time limit of the first attempt to connect and get an answer. The limit doubles when it was too
/// short. A host that lost one connection may well serve the next.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// Where and how to dial.
#[derive(Debug)]
pub(crate) struct Redial {
    pub(crate) endpoint: Endpoint,
    /// Longest wait for the transport to connect.
    pub(crate) timeout: Duration,
    /// First pause before dialling again; doubled at each failure, with jitter.
    pub(crate) backoff_min: Duration,
    /// Longest pause before dialling again.
    pub(crate) backoff_max: Duration,
}

/// Keeps one place of the pool filled with a connection.
pub(super) async fn keep(pool: Arc<Pool>, redial: Arc<Redial>) {
    let mut pause = redial.backoff_min;
    let mut allowed = FIRST_TIMEOUT;
    let mut jitter = Jitter::new();
    while !pool.is_closing() {
        let epoch = pool.peer_epochs.now();
        let opened = tokio::select! {
            () = pool.closing() => break,
            opened = open(&pool, &redial, allowed) => opened,
        };
        match opened {
            Ok(connection) => {
                allowed = FIRST_TIMEOUT;
                let since = Instant::now();
                let reason = drive(&pool, connection, Arc::default(), epoch).await;
                debug!(%reason, "driver left the pool");
                if since.elapsed() >= MIN_STABLE_TIME {
                    pause = redial.backoff_min;
                }
            }
            Err(failed) => {
                pool.set_down_if_empty(&failed.reason);
                if failed.timed_out {
                    allowed = allowed.saturating_mul(2);
                }
            }
        }
        tokio::select! {
            () = pool.closing() => break,
            () = sleep(jitter.spread(pause)) => {}
        }
        pause = (pause * 2).min(redial.backoff_max);
    }
}

/// Why no connection was made.
struct DialFailure {
    reason: String,
    timed_out: bool,
}

async fn open(
    pool: &Pool,
    redial: &Redial,
    allowed: Duration,
) -> Result<OpenedConnection, DialFailure> {
    let tuning = &pool.config.tuning;
    let limit = redial.timeout.min(allowed);
    let transport = dial(&redial.endpoint, tuning, limit)
        .await
        .map_err(|error| DialFailure {
            reason: error.to_string(),
            timed_out: matches!(error, DialError::Timeout(_)),
        })?;
    let limit = tuning.handshake_timeout.min(allowed);
    timeout(limit, http2_open(transport, tuning))
        .await
        .map_err(|_| DialFailure {
            reason: LinkError::Handshake(limit).to_string(),
            timed_out: true,
        })?
        .map_err(|error| DialFailure {
            reason: error.to_string(),
            timed_out: false,
        })
}
