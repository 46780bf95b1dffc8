//! Conditions on the bytes of a flow.

use crate::denial::Reason;

/// A condition that an allowed flow must still meet, checked on its first bytes.
///
/// Exhaustive on purpose, as [`Reason`] is: code that carries flows must not compile before it
/// checks a new condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The flow starts with a TLS ClientHello whose server name is the flow's name.
    Sni,
}

impl Condition {
    /// The reason of the denial when a flow does not meet the condition.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Sni => Reason::Sni,
        }
    }
}
