//! What the connection executor takes from tokio. In `link/loom` this module is loom's.

use std::future::Future;
use std::pin::Pin;

pub(crate) use tokio::task::coop::{has_budget_remaining, unconstrained};

/// Gives work a task of its own. Without a runtime there is nothing that it could wait for.
pub(crate) fn spawn(work: Pin<Box<dyn Future<Output = ()> + Send>>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}
