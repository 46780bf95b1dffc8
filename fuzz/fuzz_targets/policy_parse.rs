//! Any bytes as a policy file: no panic, an error or a policy and never both,
//! every diagnostic in the file and printable, and the strict reader and the
//! checker of one mind.

#![no_main]

use libfuzzer_sys::fuzz_target;
use odyn_policy::{check_bytes, load_bytes, render};

fuzz_target!(|bytes: &[u8]| {
    let loaded = load_bytes("fuzz.yaml", bytes);
    let checked = check_bytes("fuzz.yaml", bytes);
    let text = String::from_utf8_lossy(bytes);
    for outcome in [&loaded, &checked] {
        assert!(outcome.policy.is_none() || !outcome.has_errors());
        assert!(
            outcome.policy.is_some() || outcome.has_errors(),
            "nothing is said"
        );
        for diagnostic in &outcome.diagnostics {
            assert!(!render(diagnostic, &text).is_empty());
        }
    }
    assert_eq!(loaded.has_errors(), checked.has_errors());
});
