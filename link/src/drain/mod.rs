//! The end of a guest or a host: its phases, and what is delivered.

pub(crate) mod delivery;
pub(crate) mod flush;
pub(crate) mod guard;
pub(crate) mod phase;
