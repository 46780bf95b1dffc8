//! Models of odyn-link's own concurrency: loom runs each with every order in which its threads can
//! get at the locks and atomics. `cargo run` runs all of them and says how many orders there were.

#![forbid(unsafe_code)]
#![allow(dead_code)]

mod drain;
#[path = "../../src/http2/executor.rs"]
mod executor;
mod models;
#[path = "../../src/sockets/observed.rs"]
mod observed;
mod runtime;
mod sync;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn main() {
    for (name, model) in models::ALL {
        let orders = Arc::new(AtomicUsize::new(0));
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(models::MAX_PREEMPTIONS);
        let counted = Arc::clone(&orders);
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            model();
        });
        println!("{name}: {} interleavings", orders.load(Ordering::Relaxed));
    }
}
