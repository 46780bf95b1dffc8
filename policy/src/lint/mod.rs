//! Warnings about policies that load but probably do not do what was meant.
//!
//! Every lint is near-linear in the number of rules: it asks an index for the few rules that can
//! matter, and looks at a bounded number of them. So a lint can miss a finding in an unusual
//! policy, but never reports a wrong one.

mod breadth;
mod coverage;
mod ports;
mod useless;

use crate::diagnostic::DiagnosticSink;
use crate::load;
use crate::load::{LoadedPolicy, Manifest};
use crate::policy::Policy;

/// Loads a policy as [`crate::load()`] does, and adds warnings.
#[must_use]
pub fn check(file_name: &str, text: &str) -> LoadedPolicy {
    let mut sink = DiagnosticSink::new(file_name);
    let manifest = load::read(text, &mut sink);
    if let Some(manifest) = &manifest {
        run(manifest, &mut sink);
    }
    let policy = manifest.map(|m| Policy::compile(file_name, m.settings, m.rules));
    load::finish(policy, sink)
}

/// As [`check`], for bytes that may not be text.
#[must_use]
pub fn check_bytes(file_name: &str, bytes: &[u8]) -> LoadedPolicy {
    match load::text_of(file_name, bytes) {
        Ok(text) => check(file_name, text),
        Err(loaded) => *loaded,
    }
}

fn run(manifest: &Manifest, sink: &mut DiagnosticSink) {
    breadth::run(&manifest.rules, sink);
    coverage::run(&manifest.rules, sink);
    useless::run(&manifest.rules, sink);
    ports::run(&manifest.listeners, sink);
}
