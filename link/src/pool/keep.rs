//! Dials and replaces the connections of a pool.
//!
//! Each place in the pool has a task that dials, publishes the connection, and drives it until it
//! ends or the host says that it will take no more flows (GOAWAY). Then the place dials again at
//! once, while the old connection is driven on until its last flow has ended.

use std::sync::Arc;
use std::time::Duration;

use odyn_proto::Endpoint;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::connection::{Opened, drive};
use super::jitter::Jitter;
use super::{Pool, connection};
use crate::dial::dial;
use crate::error::{DialError, LinkError};

/// A connection that ended sooner than this was no success: a host that takes connections and
/// drops them is dialled as seldom as one that is away.
const STEADY: Duration = Duration::from_secs(1);

/// What the first try gets to connect and be answered; doubled when that was too short. What has
/// swallowed one connection may well serve the next.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// Keeps one place of the pool filled.
pub(super) async fn keep(pool: Arc<Pool>, endpoint: Arc<Endpoint>) {
    let mut pause = pool.config.backoff_min;
    let mut patience = FIRST_PATIENCE;
    let mut jitter = Jitter::new();
    while !pool.closing.is_cancelled() {
        let generation = pool.generations.now();
        let opened = tokio::select! {
            () = pool.closing.cancelled() => break,
            opened = open(&pool, &endpoint, patience) => opened,
        };
        match opened {
            Ok(connection) => {
                patience = FIRST_PATIENCE;
                let since = Instant::now();
                let reason = drive(&pool, connection, Arc::default(), generation).await;
                debug!(%reason, "connection left the pool");
                if since.elapsed() >= STEADY {
                    pause = pool.config.backoff_min;
                }
            }
            Err(failed) => {
                pool.set_down_if_empty(&failed.reason);
                if failed.timed_out {
                    patience = patience.saturating_mul(2);
                }
            }
        }
        tokio::select! {
            () = pool.closing.cancelled() => break,
            () = sleep(jitter.spread(pause)) => {}
        }
        pause = (pause * 2).min(pool.config.backoff_max);
    }
}

/// There is no connection.
struct Failed {
    reason: String,
    timed_out: bool,
}

async fn open(pool: &Pool, endpoint: &Endpoint, patience: Duration) -> Result<Opened, Failed> {
    let config = &pool.config;
    let limit = config.dial_timeout.min(patience);
    let transport = dial(endpoint, &config.tuning, limit)
        .await
        .map_err(|error| Failed {
            reason: error.to_string(),
            timed_out: matches!(error, DialError::Timeout(_)),
        })?;
    let limit = config.tuning.handshake_timeout.min(patience);
    timeout(limit, connection::greet(transport, config))
        .await
        .map_err(|_| Failed {
            reason: LinkError::Handshake(limit).to_string(),
            timed_out: true,
        })?
        .map_err(|error| Failed {
            reason: error.to_string(),
            timed_out: false,
        })
}
