//! PINGs, to notice a link that is silently gone.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::config::Tuning;

/// Sends a PING now and then. Returns when one was not answered in time: the link is dead.
pub(crate) async fn keepalive(mut pings: PingPong, tuning: &Tuning) -> Duration {
    loop {
        sleep(tuning.keepalive).await;
        match timeout(tuning.keepalive_timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended; whoever drives it knows why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return tuning.keepalive_timeout,
        }
    }
}
