//! An attestation document: reading and verifying it neither panics nor believes anything.

#![no_main]

use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use odyn_kms::attest::{AWS_NITRO_ROOT, Document, Expected, SIMULATED_ROOT, verify};

fuzz_target!(|bytes: &[u8]| {
    let read = Document::read(bytes);
    // At no time that a certificate is valid at.
    for root in [AWS_NITRO_ROOT, SIMULATED_ROOT] {
        let expected = Expected::of_root(root, SystemTime::UNIX_EPOCH);
        assert!(verify(bytes, &expected).is_err());
    }
    if let Ok(document) = read {
        assert!(!document.pcrs.is_empty() && !document.cabundle.is_empty());
        assert!(document.claims.check().is_ok());
    }
});
