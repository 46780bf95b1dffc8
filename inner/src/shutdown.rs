//! The end of a guest, in its order. `docs/shutdown.md` is the contract.

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

/// What the host gets to confirm the end of the link's connections.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A guest whose app has ended.
pub struct EndedGuest {
    /// What the app was served on loopback.
    pub services: Services,
    /// Hears signals and kills what the app left behind.
    pub supervisor: Supervisor,
    /// Takes the app's connections and datagrams.
    pub egress: RunningEgress,
    /// Brings it clients.
    pub ingress: RunningIngress,
}

/// Ends everything in the order of the contract. `guest` is `None` if the app was not started.
///
/// What is left then is dropped with the runtime, each flow with its record.
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
    // The app's output, our log, and how the app has ended.
    telemetry.finish(exit, deadline).await;
    // Done: GOAWAY, and the connections are closed.
    link.close(CLOSE_TIMEOUT).await;
}

impl EndedGuest {
    /// Delivers what the app wrote. Says until when.
    async fn drain(
        mut self,
        exit: AppExit,
        link: &HostLink,
        telemetry: &Telemetry,
        limit: Duration,
    ) -> Instant {
        // A request to KMS that is being answered is a flow: it ends first.
        self.services.stop().await;

        // Draining: from here on nothing is written to the app's sockets.
        link.begin_drain(limit);
        let drain = link.drain_watch();
        let deadline = Instant::from_std(drain.step().until);
        // Processes that the app left behind: their sockets must end for the flows to end.
        self.supervisor.end_leftovers().await;
        tracing::info!(
            ending = ?exit,
            flows = self.egress.open_flows(),
            clients = self.ingress.open_flows(),
            "program ended"
        );
        telemetry.state(&GuestState::Draining);

        // Flushing when all is handed to the host; Forced at the deadline or a second signal.
        let told_again = async {
            self.supervisor.told_to_stop().await;
        };
        let (egress, ingress) = (&self.egress, &self.ingress);
        let drained = tokio::select! {
            drained = link.drain(told_again) => drained,
            () = empty_backlogs(egress) => return deadline,
        };
        report(&drained, &drain);

        // Reversed connections end behind their last client.
        ingress.close(CLOSE_TIMEOUT).await;
        deadline
    }
}

/// Takes the connections and datagrams that the kernel has already accepted, and nothing after
/// them. Never ready: the link says when the drain is over.
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
        tracing::info!(?took, "drained: all that the program wrote is delivered");
    }
}
