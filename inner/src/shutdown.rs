//! The end of a guest: [`odyn_link::Phase`] from `Draining` on.
//!
//! The program has ended, and its sockets are the kernel's, which holds what was written to them:
//! in connections that are not accepted yet, in those that are carried, in datagrams that are not
//! read. All of it is taken and carried, the host half is asked whether it has arrived, and only
//! then odyn-net ends. docs/shutdown.md says what is promised.

use std::future::Future;
use std::time::{Duration, Instant};

use odyn_link::Drained;

use crate::egress::{PermittedLink, RunningEgress};

/// Drains for at most `limit`, or until `force` is ready. Connections of the link stay.
///
/// Clients of the program (ingress) take part by the link's drain.
pub async fn drain(
    egress: &RunningEgress,
    link: &PermittedLink,
    limit: Duration,
    force: impl Future<Output = ()>,
) {
    let started = Instant::now();
    let drained = tokio::select! {
        drained = link.drain(limit, force) => drained,
        () = stop_for_good(egress) => return,
    };
    report(&drained, started.elapsed());
}

/// Never ready: the end of the drain is the link's matter.
async fn stop_for_good(egress: &RunningEgress) {
    egress.stop().await;
    std::future::pending().await
}

fn report(drained: &Drained, took: Duration) {
    for flow in &drained.earlier {
        tracing::warn!(
            dialled = %flow.dialled,
            bytes_undelivered = flow.pending,
            "a flow that had ended before was not delivered to its end"
        );
    }
    if drained.cut > 0 {
        tracing::warn!(
            flows = drained.cut,
            bytes_undelivered = drained.undelivered,
            ?took,
            "drained: flows were cut"
        );
    } else {
        tracing::info!(?took, "drained: all that the program wrote is delivered");
    }
}
