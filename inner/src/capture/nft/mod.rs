//! Capture by nf_tables: rules as data, and the module that installs them.

mod expr;
mod netlink;
pub mod ruleset;

pub use netlink::InstallError;
pub use ruleset::{LOG_GROUP, Steering, UDP_MARK};

use ruleset::{Action, Ruleset, capture};

/// Installs the capture rules. Returns whether rejected packets are logged: without NFLOG only the
/// audit of rejected packets is missing.
///
/// # Errors
/// The kernel refused a part; the error names it with its kernel options. No rule is in force.
pub fn install(steering: &[Steering]) -> Result<bool, InstallError> {
    let full = capture(steering);
    match netlink::install(&full) {
        Ok(()) => Ok(true),
        Err(InstallError::Refused { optional: true, .. }) => {
            netlink::install(&without_log(full)).map(|()| false)
        }
        Err(error) => Err(error),
    }
}

/// Installs any rules, for `doctor`. It tries single expressions in a temporary namespace.
///
/// # Errors
/// The kernel refused a part.
pub fn try_rules(ruleset: &Ruleset) -> Result<(), InstallError> {
    netlink::install(ruleset)
}

/// Removes the rules of an earlier run, which lead traffic to closed sockets.
///
/// # Errors
/// The kernel has no nf_tables, in most cases, and then has no rules either.
pub fn remove() -> Result<(), InstallError> {
    netlink::remove()
}

fn without_log(mut ruleset: Ruleset) -> Ruleset {
    for chain in &mut ruleset.chains {
        chain
            .rules
            .retain(|rule| !matches!(rule.action, Action::Log { .. }));
    }
    ruleset
}
