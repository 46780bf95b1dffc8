//! The program under policy: how it is started, watched and waited for.

pub mod filter;
pub mod identity;
pub mod launch;
pub mod watch;
