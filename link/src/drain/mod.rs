//! The end of a guest or a host: one vocabulary for both, and what is delivered.
//!
//! A [`Trigger`] starts the drain and advances it from [`Phase`] to phase. Everything else has a
//! [`Watch`] of it, and holds it with a [`Guard`] where something must end first.

pub(crate) mod delivery;
pub(crate) mod flush;
pub(crate) mod guard;
mod phase;
mod signal;
mod watch;

pub use guard::{Guard, GuardKind};
pub use phase::{Phase, PhaseStep};
pub use signal::PhaseReached;
pub use watch::{FlowsCut, Trigger, Watch};
