//! Dials and replaces the connections of a pool.
//!
//! Each place in the pool has a task that dials, publishes the connection, and drives it until it
//! ends or the host says that it will take no more flows (GOAWAY). Then the place dials again at
//! once, while the old connection is driven on until its last flow has ended.

use std::sync::Arc;

use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{
    Pool,
    connection::{self, Opened, drive},
    jitter::Jitter,
};
use crate::{dial::dial, endpoint::Endpoint, error::LinkError};

/// Keeps one place of the pool filled.
pub(super) async fn keep(pool: Arc<Pool>, endpoint: Arc<Endpoint>) {
    let mut pause = pool.config.backoff_min;
    let mut jitter = Jitter::new();
    while !pool.closing.is_cancelled() {
        let opened = tokio::select! {
            () = pool.closing.cancelled() => break,
            opened = open(&pool, &endpoint) => opened,
        };
        match opened {
            Ok(connection) => {
                pause = pool.config.backoff_min;
                let reason = drive(&pool, connection).await;
                debug!(%reason, "connection left the pool");
            }
            Err(reason) => pool.set_down_if_empty(&reason),
        }
        tokio::select! {
            () = pool.closing.cancelled() => break,
            () = sleep(jitter.spread(pause)) => {}
        }
        pause = (pause * 2).min(pool.config.backoff_max);
    }
}

async fn open(pool: &Pool, endpoint: &Endpoint) -> Result<Opened, String> {
    let config = &pool.config;
    let transport = dial(endpoint, &config.tuning, config.dial_timeout)
        .await
        .map_err(|error| error.to_string())?;
    let limit = config.tuning.handshake_timeout;
    match timeout(limit, connection::greet(transport, config)).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(LinkError::Handshake(limit).to_string()),
    }
}
