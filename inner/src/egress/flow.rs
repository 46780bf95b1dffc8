//! The path of every egress flow, whichever way it was captured.
//!
//! 1. [`Captured::original`]: where the app wanted to go.
//! 2. The authorizer asks the policy; a denied flow is refused.
//! 3. The rule's conditions are checked on the app's first bytes. A flow whose bytes cannot be
//!    looked at meets no condition: it is denied.
//! 4. [`Captured::carry`] opens the flow on the link and moves its bytes.
//!
//! Each flow has one audit record, which ends on every path.

use odyn_link::OpenError;
use odyn_link::drain::Guard;
use odyn_policy::{Condition, Protocol, RuleRef};
use odyn_proto::OrigDst;

use super::tcp::Connected;
use super::{Egress, conditions};
use crate::audit::{End, Record, Refusal};
use crate::egress::authorize::{Admitted, Rejected, end_of_open};

/// A captured flow before the decision.
pub(super) trait Captured: Sized + Send {
    /// The protocol that the policy decides on.
    const PROTOCOL: Protocol;

    /// The destination that the app addressed.
    fn original(&self) -> OrigDst;

    /// Refuses the flow. A TCP connection is answered at once; a UDP flow's future answers each
    /// further datagram. The implementation drops `handover` when a drain may end without it.
    fn refuse(
        self,
        cause: RefusalCause,
        handover: Guard,
    ) -> impl Future<Output = ()> + Send + 'static;

    /// Returns the app's bytes, so that conditions can be checked on them.
    fn into_stream(self) -> impl Future<Output = AppStream<Self>> + Send;

    /// Opens the flow on the link and carries it to its end.
    fn carry(self, allowed: AllowedFlow<'_>) -> impl Future<Output = ()> + Send;
}

/// The reason for a refusal, which selects the answer to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalCause {
    /// The policy, or a condition of its rule.
    Denied,
    /// The name that the flow was made to does not resolve now.
    Unresolved,
    /// The host did not open it.
    NotOpened(End),
}

/// The result of [`Captured::into_stream`].
pub(super) enum AppStream<C> {
    /// The app is connected, and its first bytes can be peeked at.
    Connected(Connected),
    /// The app closed the connection.
    Gone,
    /// Flows of this kind have no bytes that can be peeked at.
    None(C),
}

/// An allowed flow on its way to the link.
pub(super) struct AllowedFlow<'a> {
    /// The permission, and the name that the flow was made to.
    pub(super) admitted: Admitted,
    /// The flow's audit record.
    pub(super) record: Record,
    pub(super) egress: &'a Egress,
    /// Delays the end of a drain until the link knows the flow.
    pub(super) handover: Guard,
}

/// Decides on a captured flow, and refuses or carries it.
pub(super) async fn run<C: Captured>(captured: C, egress: &Egress, handover: Guard) {
    let original = captured.original();
    let mut record = egress.audit.flow(C::PROTOCOL.as_str(), original);
    let authorized = egress
        .authorizer
        .authorize(original, C::PROTOCOL, &mut record)
        .await;
    let admitted = match authorized {
        Ok(admitted) => admitted,
        Err(Rejected::Denied(refusal)) => return deny(captured, record, refusal, handover).await,
        Err(Rejected::Unresolved) => {
            let refused = captured.refuse(RefusalCause::Unresolved, handover);
            record.ended(End::Unresolved);
            return refused.await;
        }
    };
    let Some(condition) = admitted.permit.conditions().first().copied() else {
        return captured
            .carry(AllowedFlow {
                admitted,
                record,
                egress,
                handover,
            })
            .await;
    };
    let connected = match captured.into_stream().await {
        AppStream::Connected(connected) => connected,
        AppStream::Gone => return record.ended(End::ResetByApp),
        AppStream::None(captured) => {
            let refusal = Refusal::of(condition.reason().as_str());
            return deny(captured, record, refusal, handover).await;
        }
    };
    match conditions::first_unmet(&admitted, connected.stream()).await {
        Some(condition) => {
            let refusal = unmet(condition, admitted.permit.rule());
            deny(connected, record, refusal, handover).await;
        }
        None => {
            connected
                .carry(AllowedFlow {
                    admitted,
                    record,
                    egress,
                    handover,
                })
                .await;
        }
    }
}

/// Ends a flow that the host did not open.
pub(super) async fn not_opened<C: Captured>(
    captured: C,
    error: &OpenError,
    record: Record,
    handover: Guard,
) {
    let original = captured.original();
    tracing::debug!(%original, %error, flow = record.id(), "the host did not open the flow");
    let end = end_of_open(error);
    let refused = captured.refuse(RefusalCause::NotOpened(end), handover);
    record.ended(end);
    refused.await;
}

/// Answers the app first and writes the record second, as the app waits for the answer.
async fn deny<C: Captured>(captured: C, record: Record, refusal: Refusal, handover: Guard) {
    let refused = captured.refuse(RefusalCause::Denied, handover);
    record.denied(refusal);
    refused.await;
}

fn unmet(condition: Condition, rule: Option<&RuleRef>) -> Refusal {
    Refusal {
        reason: condition.reason().as_str(),
        rule: rule.map(|rule| rule.text().into()),
        line: rule.map(RuleRef::line),
    }
}
