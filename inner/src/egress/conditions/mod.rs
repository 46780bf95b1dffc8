//! Conditions that a rule sets on the first bytes of a flow.
//!
//! The policy allows a flow under conditions ([`odyn_policy::Permit::conditions`]); this module
//! checks them before a byte leaves the guest. A new condition is one file here and one arm in
//! `is_met`, which does not compile without it.

pub mod sni;

use odyn_policy::Condition;
use tokio::net::TcpStream;

use crate::egress::authorize::Admitted;

/// Returns the first condition that the flow does not meet. Peeks at the bytes.
pub(super) async fn first_unmet(admitted: &Admitted, stream: &TcpStream) -> Option<Condition> {
    for condition in admitted.permit.conditions() {
        if !is_met(*condition, admitted, stream).await {
            return Some(*condition);
        }
    }
    None
}

async fn is_met(condition: Condition, admitted: &Admitted, stream: &TcpStream) -> bool {
    match condition {
        Condition::Sni => sni::is_met(admitted.name.as_ref(), stream).await,
    }
}
