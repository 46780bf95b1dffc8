//! Capture by nf_tables: rules as data, and the one place that gives them to the kernel.

mod expr;
mod netlink;
pub mod ruleset;

pub use netlink::InstallError;
pub use ruleset::{LOG_GROUP, Steering, UDP_MARK};

use ruleset::{Action, Ruleset, capture};

/// Installs the capture rules. Returns whether rejected packets are logged: a kernel without
/// NFLOG captures and rejects as well as any, only the audit of rejected packets is missing.
///
/// # Errors
/// The part that the kernel refused and the kernel options it needs; then no rule is in force.
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

/// Installs rules as they are, for `doctor`: it tries single expressions in a namespace that is
/// thrown away afterwards.
///
/// # Errors
/// What the kernel refused.
pub fn try_rules(ruleset: &Ruleset) -> Result<(), InstallError> {
    netlink::install(ruleset)
}

/// Removes the rules of an earlier run, which would lead traffic to sockets that are gone.
///
/// # Errors
/// The kernel has no nf_tables, in most cases; then there are no rules either.
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
