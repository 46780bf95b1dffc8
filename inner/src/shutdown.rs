//! Ends a guest, in the order that `docs/shutdown.md` promises.

use std::time::Duration;

use odyn_link::drain::Watch;
use odyn_link::{Drained, HostLink};
use odyn_proto::GuestState;
use tokio::time::Instant;

use crate::egress::RunningEgress;
use crate::ingress::RunningIngress;
use crate::services::Services;
use crate::supervisor::exit_status::AppExit;
use crate::supervisor::supervise::Supervisor;
use crate::telemetry::Telemetry;

/// How long the host has to confirm the end of the link's connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A guest whose app has ended.
pub struct EndedGuest {
    /// The services of the app on loopback.
    pub services: Services,
    /// Receives signals and kills the processes that the app left behind.
    pub supervisor: Supervisor,
    /// Takes the app's connections and datagrams.
    pub egress: RunningEgress,
    /// Connects clients to the app.
    pub ingress: RunningIngress,
}

/// Ends the guest in the order of the contract. `guest` is `None` if the app was not started.
///
/// Flows that are still open then are dropped with the runtime, each with its record.
pub async fn end(
    guest: Option<EndedGuest>,
    exit: AppExit,
    link: &HostLink,
    telemetry: Telemetry,
    drain_timeout: Duration,
) {
    let mut deadline = Instant::now();
    if let Some(guest) = guest {
        deadline = guest.drain(exit, link, &telemetry, drain_timeout).await;
    }
    // Reports the app's output, odyn-net's log, and how the app ended.
    telemetry.finish(exit, deadline).await;
    // The link sends GOAWAY and closes its connections.
    link.close(CLOSE_TIMEOUT).await;
}

impl EndedGuest {
    /// Delivers what the app wrote. Returns the deadline.
    async fn drain(
        mut self,
        exit: AppExit,
        link: &HostLink,
        telemetry: &Telemetry,
        limit: Duration,
    ) -> Instant {
        // A request to KMS in progress is a flow, and ends first.
        self.services.stop().await;

        // Draining: the app has ended and writes no more to its sockets.
        link.begin_drain(limit);
        let drain = link.drain_watch();
        let deadline = Instant::from_std(drain.step().until);
        // The sockets of processes that the app left behind must end, too, for the flows to end.
        self.supervisor.end_leftovers().await;
        tracing::info!(
            ending = ?exit,
            flows = self.egress.open_flows(),
            clients = self.ingress.open_flows(),
            "app ended"
        );
        telemetry.state(&GuestState::Draining);

        // Flushing begins when all is handed to the host; Forced at the deadline or a second
        // signal.
        let told_again = async {
            self.supervisor.told_to_stop().await;
        };
        let (egress, ingress) = (&self.egress, &self.ingress);
        let drained = tokio::select! {
            drained = link.drain(told_again) => drained,
            () = empty_backlogs(egress) => return deadline,
        };
        report(&drained, &drain);

        // Reversed connections end after their last client.
        ingress.close(CLOSE_TIMEOUT).await;
        deadline
    }
}

/// Takes the connections and datagrams that the kernel has already accepted, and no later ones.
/// Never ready: the link decides when the drain ends.
async fn empty_backlogs(egress: &RunningEgress) {
    egress.stop().await;
    std::future::pending().await
}

fn report(drained: &Drained, drain: &Watch) {
    let took = drain.step().since.elapsed();
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
        tracing::info!(?took, "drained: all that the app wrote is delivered");
    }
}
