//! A `CiphertextForRecipient`: no panic, and what is taken is written again byte for byte but for how
//! the content is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use odyn_kms::envelope::Envelope;
use odyn_kms::envelope::seal::{Form, write_for};

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = Envelope::parse(bytes) else {
        return;
    };
    assert!(!envelope.content.is_empty() && envelope.content.len() % 16 == 0);
    let Envelope {
        recipient,
        encrypted_key,
        iv,
        content,
    } = &envelope;
    for form in [Form::Primitive, Form::Chunks(7)] {
        if content.len() > usize::from(u16::MAX) && form == Form::Primitive {
            continue;
        }
        let again = write_for(recipient, encrypted_key, *iv, content, form);
        if let Ok(read) = Envelope::parse(&again) {
            assert_eq!(read, envelope);
        } else {
            assert!(again.len() > odyn_kms::envelope::MAX_ENVELOPE);
        }
    }
});
