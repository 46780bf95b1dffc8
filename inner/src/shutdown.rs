//! The end of a guest: [`odyn_link::Phase`] from `Draining` on.
//!
//! The program has ended, and its sockets are the kernel's, which holds what was written to them:
//! in connections that are not accepted yet, in those that are carried, in datagrams that are not
//! read. All of it is taken and carried, the host half is asked whether it has arrived, and only
//! then odyn-net ends. docs/shutdown.md says what is promised.

use std::future::Future;
use std::time::{Duration, Instant};

use odyn_link::Drained;

use crate::egress::{self, Door};
use crate::ingress;

/// What there is to drain.
#[derive(Clone, Copy)]
pub struct Flows<'a> {
    /// Flows of the program.
    pub egress: &'a egress::Running,
    /// Those of its clients.
    pub ingress: &'a ingress::Running,
}

/// Drains for at most `limit`, or until `force` is ready. Connections of the link stay.
pub async fn drain(
    flows: Flows<'_>,
    door: &Door,
    limit: Duration,
    force: impl Future<Output = ()>,
) {
    let started = Instant::now();
    let busy = door.busy();
    let clients = async {
        flows.ingress.drain().await;
        drop(busy);
    };
    let drained = tokio::select! {
        drained = door.drain(limit, force) => drained,
        () = for_ever(flows.egress.stop(), clients) => return,
    };
    report(&drained, flows.ingress.open_flows(), started.elapsed());
}

/// Does both, and is never ready: the end of the drain is the door's matter.
async fn for_ever(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::join!(one, other);
    std::future::pending().await
}

fn report(drained: &Drained, clients: usize, took: Duration) {
    for flow in &drained.earlier {
        tracing::warn!(
            dialled = %flow.dialled,
            bytes_undelivered = flow.pending,
            "a flow that had ended before was not delivered to its end"
        );
    }
    if drained.cut + clients > 0 {
        tracing::warn!(
            flows = drained.cut + clients,
            bytes_undelivered = drained.undelivered,
            ?took,
            "drained: flows were cut"
        );
    } else {
        tracing::info!(?took, "drained: all that the program wrote is delivered");
    }
}
