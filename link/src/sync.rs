//! The lock and the atomics of the modules that loom checks. There, this module is loom's.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};

pub(crate) use parking_lot::Mutex;
