//! The app under policy: how it is started, watched and waited for.

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
