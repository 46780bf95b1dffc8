//! What is allowed by the format and probably not meant.
//!
//! Every lint stays near-linear in the number of rules: it asks an index for the few rules that
//! can matter, and where that could still be many it looks at a bounded number. So a lint may
//! miss a finding in a strange policy; it never claims one that is not.

mod breadth;
mod coverage;
mod ports;
mod useless;

use crate::diagnostic::Sink;
use crate::load;
use crate::load::{Loaded, Manifest};
use crate::policy::Policy;

/// Reads a policy as [`crate::load`] does and adds warnings about what it means.
#[must_use]
pub fn check(file_name: &str, text: &str) -> Loaded {
    let mut sink = Sink::new(file_name);
    let manifest = load::read(text, &mut sink);
    if let Some(manifest) = &manifest {
        run(manifest, &mut sink);
    }
    let policy = manifest.map(|m| Policy::compile(file_name, m.settings, m.rules));
    load::finish(policy, sink)
}

/// As [`check`], of bytes that need not be text.
#[must_use]
pub fn check_bytes(file_name: &str, bytes: &[u8]) -> Loaded {
    match load::text_of(file_name, bytes) {
        Ok(text) => check(file_name, text),
        Err(loaded) => *loaded,
    }
}

fn run(manifest: &Manifest, sink: &mut Sink) {
    breadth::run(&manifest.rules, sink);
    coverage::run(&manifest.rules, sink);
    useless::run(&manifest.rules, sink);
    ports::run(&manifest.listeners, sink);
}
