//! Sockets beside the link: those of the app in the guest, those to destinations on the host.

pub(crate) mod connect;
pub(crate) mod counters;
pub(crate) mod observed;
pub(crate) mod readiness;
pub(crate) mod send_queue;
