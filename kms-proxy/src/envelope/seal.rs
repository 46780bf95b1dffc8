//! The encryption as KMS does it, for tests. Unit tests compare it with recorded messages.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

use super::{
    AES_256_CBC, BLOCK, CONTENT_KEY, CONTEXT_0_OPEN, END, OAEP_SHA256, OID_DATA,
    OID_ENVELOPED_DATA, SEQUENCE_OPEN, VERSION_2,
};
use crate::Error;

/// The form of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In one piece.
    Primitive,
    /// In chunks of this many bytes.
    Chunks(usize),
}

/// Encrypts for a public key (SubjectPublicKeyInfo, DER) as KMS does.
///
/// # Errors
/// [`Error::Key`] if it is no RSA key.
pub fn seal(public: &[u8], plaintext: &[u8], form: Form) -> Result<Vec<u8>, Error> {
    let pad = BLOCK - plaintext.len() % BLOCK;
    let mut content = plaintext.to_vec();
    content.resize(plaintext.len() + pad, pad as u8);
    seal_padded(public, content, form)
}

/// As [`seal`], for content that has its padding already, right or wrong.
///
/// # Errors
/// As [`seal`].
pub fn seal_padded(public: &[u8], mut content: Vec<u8>, form: Form) -> Result<Vec<u8>, Error> {
    let failed = |_| Error::Key("cannot encrypt");
    let (mut key, mut iv) = ([0; CONTENT_KEY], [0; BLOCK]);
    aws_lc_rs::rand::fill(&mut key).map_err(failed)?;
    aws_lc_rs::rand::fill(&mut iv).map_err(failed)?;
    let cipher = UnboundCipherKey::new(&AES_256, &key).map_err(failed)?;
    let cipher = EncryptingKey::cbc(cipher).map_err(failed)?;
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    cipher
        .less_safe_encrypt(&mut content, context)
        .map_err(failed)?;
    let rsa = PublicEncryptingKey::from_der(public).map_err(|_| Error::Key("no RSA public key"))?;
    let rsa = OaepPublicEncryptingKey::new(rsa).map_err(failed)?;
    let mut wrapped = vec![0; rsa.ciphertext_size()];
    rsa.encrypt(&OAEP_SHA256_MGF1SHA256, &key, &mut wrapped, None)
        .map_err(failed)?;
    Ok(write(public, &wrapped, iv, &content, form))
}

/// Writes an envelope.
pub fn write(
    public: &[u8],
    wrapped: &[u8],
    iv: [u8; BLOCK],
    content: &[u8],
    form: Form,
) -> Vec<u8> {
    let id = digest(&SHA256, public);
    write_for(id.as_ref(), wrapped, iv, content, form)
}

/// As [`write()`], for the key with this identifier.
pub fn write_for(
    id: &[u8],
    wrapped: &[u8],
    iv: [u8; BLOCK],
    content: &[u8],
    form: Form,
) -> Vec<u8> {
    let parts = [
        VERSION_2.to_vec(),
        element(0x80, id),
        OAEP_SHA256.to_vec(),
        element(0x04, wrapped),
    ];
    let recipients = element(0x31, &element(0x30, &parts.concat()));
    let content = match form {
        Form::Primitive => element(0x80, content),
        Form::Chunks(size) => {
            let chunks: Vec<_> = content
                .chunks(size)
                .map(|part| element(0x04, part))
                .collect();
            [CONTEXT_0_OPEN, &chunks.concat(), END].concat()
        }
    };
    [
        SEQUENCE_OPEN,
        OID_ENVELOPED_DATA,
        CONTEXT_0_OPEN,
        SEQUENCE_OPEN,
        VERSION_2,
        &recipients,
        SEQUENCE_OPEN,
        OID_DATA,
        AES_256_CBC,
        &iv,
        &content,
        &END.repeat(4),
    ]
    .concat()
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}
