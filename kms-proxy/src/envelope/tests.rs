//! Recorded messages of KMS, and hostile ones.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::seal::{Form, seal, seal_padded, write};
use super::{Envelope, RecipientKey};
use crate::Error;

/// From RustCrypto/formats issue 779; its key is not public.
const OF_ISSUE_779: &str = include_str!("../../vectors/kms-779.b64");
/// A secret of 64 to 79 bytes, recorded from a debug enclave; its key is gone.
const OF_80_BYTES: &str = include_str!("../../vectors/kms-80-bytes.b64");
/// A data key, with its key, from edgebitio/nitro-enclaves-sdk-go.
const DATA_KEY: &str = include_str!("../../vectors/kms-data-key.b64");
/// A text, with its key, from Enclaver.
const HELLO: &str = include_str!("../../vectors/kms-hello-world.b64");

fn decode(text: &str) -> Vec<u8> {
    STANDARD.decode(text.trim()).expect("a vector")
}

fn key_of_hello() -> RecipientKey {
    RecipientKey::from_pkcs8(include_bytes!("../../vectors/kms-hello-world.p8")).expect("a key")
}

#[test]
fn recorded_messages_parse() {
    for (text, length) in [
        (OF_ISSUE_779, 16),
        (OF_80_BYTES, 80),
        (DATA_KEY, 48),
        (HELLO, 16),
    ] {
        let bytes = decode(text);
        let envelope = Envelope::parse(&bytes).expect("KMS' own");
        assert_eq!(envelope.content.len(), length);
        assert_eq!(envelope.encrypted_key.len(), 256);
    }
}

#[test]
fn recorded_messages_open_with_their_keys() {
    let plain = key_of_hello().open(&decode(HELLO)).expect("opens");
    assert_eq!(plain.expose(), b"Hello, World");
    let key = RecipientKey::from_pkcs8(include_bytes!("../../vectors/kms-data-key.p8"));
    let plain = key.expect("a key").open(&decode(DATA_KEY)).expect("opens");
    let hex: String = plain.expose().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "3be82c440f06cb4d44c4c2ec3bf30d472407d3a9125aa4c1842b98f6bdd26e41"
    );
}

/// The tests' stand-in for KMS writes the same bytes as KMS.
#[test]
fn what_we_write_is_byte_for_byte_what_kms_wrote() {
    for (text, pkcs8) in [
        (
            HELLO,
            &include_bytes!("../../vectors/kms-hello-world.p8")[..],
        ),
        (
            DATA_KEY,
            &include_bytes!("../../vectors/kms-data-key.p8")[..],
        ),
    ] {
        let recorded = decode(text);
        let key = RecipientKey::from_pkcs8(pkcs8).expect("a key");
        let parsed = Envelope::parse(&recorded).expect("KMS' own");
        let ours = write(
            key.public_der(),
            parsed.encrypted_key,
            parsed.iv,
            &parsed.content,
            Form::Chunks(1024),
        );
        assert_eq!(ours, recorded);
    }
}

#[test]
fn both_forms_and_every_length_come_back() {
    let key = key_of_hello();
    for length in (0..40).chain([1023, 1024, 1025, 2400, 4096]) {
        let secret: Vec<u8> = (0..length).map(|i| i as u8).collect();
        for form in [Form::Primitive, Form::Chunks(1), Form::Chunks(1000)] {
            let sealed = seal(key.public_der(), &secret, form).expect("seals");
            let opened = key.open(&sealed).expect("opens");
            assert_eq!(opened.expose(), secret, "{length} {form:?}");
        }
    }
}

/// A recorded message that is cut or extended is refused.
#[test]
fn a_message_that_is_cut_or_padded_is_refused() {
    let whole = decode(DATA_KEY);
    for length in 0..whole.len() {
        assert!(Envelope::parse(&whole[..length]).is_err(), "{length}");
    }
    for more in [&b"\0"[..], b"\0\0", b"\x30\x80"] {
        assert!(Envelope::parse(&[&whole, more].concat()).is_err());
    }
}

/// Every flipped bit outside of the content and the IV is noticed.
///
/// CBC cannot notice those inside: the last two blocks hold the padding, and the rest becomes other
/// bytes. TLS protects them.
#[test]
fn a_flipped_bit_is_an_error_or_in_the_content() {
    let key = key_of_hello();
    let whole = decode(HELLO);
    let parsed = Envelope::parse(&whole).expect("KMS' own");
    let find = |part: &[u8]| {
        let at = whole.windows(part.len()).position(|window| window == part);
        let at = at.expect("a part of it");
        at..at + part.len()
    };
    let (iv, content) = (find(&parsed.iv), find(&parsed.content));
    for bit in 0..whole.len() * 8 {
        let mut broken = whole.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        if let Ok(plain) = key.open(&broken) {
            assert!(
                iv.contains(&(bit / 8)) || content.contains(&(bit / 8)),
                "{bit}"
            );
            assert_ne!(plain.expose(), b"Hello, World");
        }
    }
}

#[test]
fn a_wrong_key_and_a_wrong_padding_are_one_error() {
    let key = key_of_hello();
    let mut unwrappable = decode(HELLO);
    let parsed = Envelope::parse(&unwrappable)
        .expect("KMS' own")
        .encrypted_key[9];
    let at = unwrappable.iter().rposition(|b| *b == parsed).expect("it");
    unwrappable[at.min(200)] ^= 1;
    let key_error = key.open(&unwrappable).expect_err("no key");
    let wrong = vec![17; 32];
    let sealed = seal_padded(key.public_der(), wrong, Form::Primitive).expect("seals");
    let padding_error = key.open(&sealed).expect_err("no padding");
    assert!(matches!(key_error, Error::Decrypt) && matches!(padding_error, Error::Decrypt));
    assert_eq!(key_error.to_string(), padding_error.to_string());
}

#[test]
fn an_answer_to_somebody_else_is_told_apart() {
    let error = key_of_hello()
        .open(&decode(DATA_KEY))
        .expect_err("another's");
    assert!(matches!(error, Error::OtherRecipient));
}

#[test]
fn definite_lengths_and_other_algorithms_are_not_kms() {
    let whole = decode(HELLO);
    for (at, byte) in [(1, 0x82), (14, 0x82), (16, 0x82), (4, 0x2b)] {
        let mut other = whole.clone();
        other[at] = byte;
        assert!(matches!(
            Envelope::parse(&other),
            Err(Error::Envelope { .. })
        ));
    }
}

/// Random bytes, and recorded messages with random bytes written over them.
#[test]
fn no_input_makes_the_parser_panic() {
    let key = key_of_hello();
    let base = decode(OF_80_BYTES);
    for round in 0..3000usize {
        let mut noise = [0; 64];
        getrandom::fill(&mut noise).expect("random bytes");
        let _ = Envelope::parse(&noise[..round % 64]);
        let mut message = base.clone();
        let at = usize::from(u16::from_be_bytes([noise[0], noise[1]])) % (message.len() - 8);
        message[at..at + 1 + round % 7].copy_from_slice(&noise[8..9 + round % 7]);
        let _ = key.open(&message);
    }
}
