//! PINGs: to notice a link that is silently gone, and to know that all was received.

use std::future::Future;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::config::Tuning;

/// What a PING has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// No answer in this time: the link is dead.
    Dead(Duration),
    /// The other half has read everything that we had sent when `last` was over.
    Confirmed,
}

/// Sends a PING now and then, and one more when `last` is over: frames are read in order, so its
/// answer says that all before it has arrived.
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
            // The connection has ended; whoever drives it knows why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return Pulse::Dead(tuning.keepalive_timeout),
        }
    }
}
