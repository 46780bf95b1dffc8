//! The host's side of the link.

pub(crate) mod config;
pub(crate) mod flow_limit;
pub(crate) mod guest_link;
pub(crate) mod handler;
pub(crate) mod ingress;
pub(crate) mod serve;
