//! A real document, from a test of Cape Privacy's SDK, and simulated ones.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{
    AWS_NITRO_ROOT, Claims, Document, Expected, Module, SIMULATED_ROOT, Simulated, verify,
};
use crate::{DocumentFault, Error};

const REAL: &str = include_str!("../../vectors/nitro-2022.b64");
/// 2022-09-15T17:44:24Z, the time of the document.
const THEN: Duration = Duration::from_secs(1_663_263_864);

fn real() -> Vec<u8> {
    STANDARD.decode(REAL.trim()).expect("a vector")
}

fn aws(at: Duration) -> Expected<'static> {
    Expected::of_root(AWS_NITRO_ROOT, SystemTime::UNIX_EPOCH + at)
}

#[test]
fn the_root_is_that_of_aws() {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, AWS_NITRO_ROOT);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
    );
}

#[test]
fn a_real_document_verifies_at_its_time() {
    let document = verify(&real(), &aws(THEN)).expect("real");
    assert_eq!(
        document.module_id,
        "i-0697c9729fa547b20-enc0183422ede9a5dc8"
    );
    assert_eq!(document.pcrs.len(), 16);
    assert_eq!(document.pcrs[&0][..4], [0xea, 0x42, 0x12, 0xee]);
    assert_eq!(document.claims.nonce.as_deref().map(<[u8]>::len), Some(12));
    assert!(!document.is_simulated() && !document.is_debug());
}

#[test]
fn a_real_document_does_not_verify_before_and_after_its_time() {
    let day = Duration::from_secs(86_400);
    for at in [THEN - day, THEN + day, Duration::ZERO] {
        let fault = verify(&real(), &aws(at)).expect_err("another time");
        assert!(matches!(fault, DocumentFault::Chain(_)), "{fault}");
    }
}

/// A document whose certificate is valid already, and which says that it is made later.
#[test]
fn a_document_from_the_future_is_refused() {
    let fault = verify(&real(), &aws(THEN - Duration::from_secs(50))).map(drop);
    assert!(fault.is_ok(), "clocks differ a little");
    let module = Simulated::new().expect("a module");
    let later = SystemTime::now() + Duration::from_secs(600);
    let document = module.attest_at(&Claims::default(), later).expect("made");
    let expected = Expected::of_root(SIMULATED_ROOT, SystemTime::now());
    let fault = verify(&document, &expected).expect_err("later");
    assert!(matches!(fault, DocumentFault::Future { .. }), "{fault}");
}

/// Each bit, but in parallel: 37 520 of them, each with up to five signatures.
#[test]
fn no_bit_of_a_real_document_can_be_flipped() {
    let whole = real();
    let bits: Vec<usize> = (0..whole.len() * 8).collect();
    std::thread::scope(|scope| {
        for part in bits.chunks(bits.len() / 2 + 1) {
            let whole = &whole;
            scope.spawn(move || {
                let mut broken = whole.clone();
                for bit in part {
                    broken[bit / 8] ^= 1 << (bit % 8);
                    assert!(verify(&broken, &aws(THEN)).is_err(), "bit {bit}");
                    broken[bit / 8] ^= 1 << (bit % 8);
                }
            });
        }
    });
}

#[test]
fn a_document_that_is_cut_or_longer_is_refused() {
    let whole = real();
    for length in 0..whole.len() {
        assert!(Document::read(&whole[..length]).is_err(), "{length}");
    }
    assert!(Document::read(&[&whole[..], b"\0"].concat()).is_err());
    let tagged = [b"\xd2", &whole[..]].concat();
    assert!(Document::read(&tagged).is_err(), "no module writes a tag");
}

#[test]
fn what_is_expected_is_compared() {
    let document = Document::read(&real()).expect("real");
    let mut expected = aws(THEN);
    expected.pcrs = document.pcrs.clone();
    expected.nonce = document.claims.nonce.as_deref();
    verify(&real(), &expected).expect("as expected");
    expected.nonce = Some(b"another");
    let fault = verify(&real(), &expected).expect_err("another nonce");
    assert!(matches!(fault, DocumentFault::Nonce));
    expected.nonce = None;
    expected.pcrs.insert(2, vec![0; 48]);
    let fault = verify(&real(), &expected).expect_err("another PCR");
    assert!(matches!(fault, DocumentFault::Pcr { index: 2, .. }));
    expected.pcrs = [(31, vec![0; 48])].into();
    let fault = verify(&real(), &expected).expect_err("no such PCR");
    assert!(fault.to_string().contains("absent"), "{fault}");
}

#[test]
fn a_simulated_document_verifies_against_its_own_root_only() {
    let claims = Claims {
        public_key: Some(vec![1; 294]),
        user_data: Some(Vec::new()),
        nonce: Some(vec![3; 512]),
    };
    let module = Simulated::new().expect("a module");
    let bytes = module.attest(&claims).expect("a document");
    let now = SystemTime::now();
    let document = verify(&bytes, &Expected::of_root(SIMULATED_ROOT, now)).expect("simulated");
    assert_eq!(document.claims, claims);
    assert!(document.is_simulated() && document.is_debug());
    assert!(document.pcrs.values().all(|pcr| *pcr == [0; 48]));
    let fault = verify(&bytes, &Expected::of_root(AWS_NITRO_ROOT, now)).expect_err("no");
    assert!(matches!(fault, DocumentFault::Chain(_)), "{fault}");
    let fault = verify(&real(), &Expected::of_root(SIMULATED_ROOT, now)).expect_err("no");
    assert!(matches!(fault, DocumentFault::Chain(_)), "{fault}");
}

#[test]
fn a_simulated_module_outlives_its_certificate() {
    let module = Simulated::new().expect("a module");
    for hours in [0, 2, 3, 30] {
        let at = SystemTime::now() + Duration::from_secs(hours * 3600);
        let bytes = module.attest_at(&Claims::default(), at).expect("made");
        verify(&bytes, &Expected::of_root(SIMULATED_ROOT, at)).expect("valid");
    }
}

#[test]
fn claims_that_do_not_fit_are_named_with_the_limit() {
    let module = Simulated::new().expect("a module");
    let long = |length| Some(vec![0; length]);
    let claims = |public_key, user_data, nonce| Claims {
        public_key,
        user_data,
        nonce,
    };
    for (claims, text) in [
        (claims(long(0), None, None), "public_key has 0 bytes"),
        (claims(long(1025), None, None), "1 to 1024"),
        (claims(None, long(513), None), "user_data has 513"),
        (claims(None, None, long(513)), "nonce has 513 bytes"),
    ] {
        let error = module.attest(&claims).expect_err("too long");
        assert!(matches!(error, Error::Limit { .. }));
        assert!(error.to_string().contains(text), "{error}");
    }
}
