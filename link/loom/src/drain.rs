//! The drain's core, from odyn-link.

#[path = "../../src/drain/phase.rs"]
pub(crate) mod phase;
#[path = "../../src/drain/signal.rs"]
pub(crate) mod signal;
