//! The guest's side of the link.

pub(crate) mod config;
pub(crate) mod drain;
pub(crate) mod ingress;
pub(crate) mod link;
