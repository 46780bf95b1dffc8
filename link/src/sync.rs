//! The lock and the atomics of the modules that `link/loom` checks. There, this module is loom's.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

pub(crate) use parking_lot::{Mutex, MutexGuard};
