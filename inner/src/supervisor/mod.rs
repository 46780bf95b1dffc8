//! Starts the app with its rights reduced, watches it and waits for its end.

pub mod exit_status;
pub mod launch;
mod passwd;
mod reap;
pub mod root_hardening;
pub mod seccomp;
mod stragglers;
pub mod supervise;
pub mod terminal;
pub mod user;
