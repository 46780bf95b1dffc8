//! The end of a guest: advances the drain behind its beginning.

use std::future::Future;
use std::time::{Duration, Instant};

use odyn_proto::wire::flush::Undelivered;
use tokio::time::timeout;

use crate::drain::{GuardKind, Phase, Trigger, Watch};
use crate::pool::Pool;

/// Time limit of the host's report on delivery after the end of a drain.
const FORCED_TIMEOUT: Duration = Duration::from_secs(1);

/// What [`HostLink::drain`](crate::HostLink::drain) had to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Flows that were cut; each says so itself ([`End::Cut`](crate::End::Cut)).
    pub cut: usize,
    /// Bytes of those flows that are not known to be delivered.
    pub undelivered: u64,
    /// Flows that had ended for the guest before, and whose last bytes are not delivered.
    pub earlier: Vec<Undelivered>,
}

/// Advances a drain that has begun, to its end.
pub(super) async fn drain(
    trigger: &Trigger,
    pool: &Pool,
    force: impl Future<Output = ()>,
) -> Drained {
    let drain = trigger.watch();
    let begun = drain.step();
    let delivered = async {
        drain.no_guards(GuardKind::Handover).await;
        advance(trigger, Phase::Flushing, begun.rest(now()));
        flushed(&drain, pool).await
    };
    let delivered = tokio::select! {
        biased;
        earlier = delivered => Some(earlier),
        () = drain.out_of_time() => None,
        () = force => None,
    };
    let earlier = match delivered {
        Some(earlier) => earlier,
        None => {
            advance(trigger, Phase::Forced, FORCED_TIMEOUT);
            let late = FORCED_TIMEOUT * 2;
            timeout(late, flushed(&drain, pool))
                .await
                .unwrap_or_default()
        }
    };
    let cut = drain.cut();
    Drained {
        // Plus flows that are not driven by `relay`, which nothing else counts.
        cut: cut.flows + pool.flows.count() + drain.guards(GuardKind::Flow),
        undelivered: cut.undelivered,
        earlier,
    }
}

/// Waits until the host has said of each connection what is delivered, and every flow has ended by
/// it. Says what belongs to none of them.
async fn flushed(drain: &Watch, pool: &Pool) -> Vec<Undelivered> {
    let reports = pool.flush_reports().await;
    pool.flows.none().await;
    drain.no_guards(GuardKind::Flow).await;
    reports.iter().flat_map(|report| report.rest()).collect()
}

/// Goes on to a phase, and says so in the log.
pub(super) fn advance(trigger: &Trigger, phase: Phase, limit: Duration) {
    if trigger.advance(phase, now(), limit) {
        tracing::debug!(?phase, "drain");
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
