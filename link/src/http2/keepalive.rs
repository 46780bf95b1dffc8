//! PINGs: detect a dead connection, and confirm that the peer has received everything.

use std::future::Future;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::config::Tuning;

/// Result of the PINGs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// No answer in this time: the connection is dead.
    Dead(Duration),
    /// The peer has read everything that was sent before `last` was ready.
    Confirmed,
}

/// Sends a PING every [`Tuning::keepalive`], and one more when `last` is ready. The peer reads
/// frames in order, so the answer confirms all that was sent before.
pub(crate) async fn keepalive(
    mut pings: PingPong,
    tuning: &Tuning,
    last: impl Future<Output = ()>,
) -> Pulse {
    tokio::pin!(last);
    loop {
        let is_last = tokio::select! {
            () = &mut last => true,
            () = sleep(tuning.keepalive) => false,
        };
        match timeout(tuning.keepalive_timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) if is_last => return Pulse::Confirmed,
            Ok(Ok(_)) => {}
            // The connection has ended; its driver knows why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return Pulse::Dead(tuning.keepalive_timeout),
        }
    }
}
