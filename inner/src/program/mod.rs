//! The program under policy: how it is started, watched and waited for.

pub mod ending;
pub mod filter;
pub mod identity;
pub mod launch;
mod leftovers;
mod reap;
pub mod shield;
pub mod terminal;
mod userdb;
pub mod watch;
