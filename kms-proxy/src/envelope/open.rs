//! The enclave's key, and the decryption of envelopes.

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use zeroize::Zeroizing;

use super::{BLOCK, CONTENT_KEY, Envelope};
use crate::{Error, Secret};

/// An RSA key of this enclave. The private key exists in the enclave's memory only.
pub struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    public: Vec<u8>,
    id: [u8; 32],
}

impl std::fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecipientKey(…)")
    }
}

impl RecipientKey {
    /// Makes an RSA-2048 key, which takes tens to hundreds of milliseconds of one processor.
    ///
    /// # Errors
    /// [`Error::Key`] when the library has no memory or no entropy.
    pub fn generate() -> Result<Self, Error> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048);
        Self::new(key.map_err(|_| Error::Key("RSA-2048 cannot be generated"))?)
    }

    /// Reads a key in PKCS#8 (RFC 5958), DER.
    ///
    /// # Errors
    /// [`Error::Key`] if the bytes are no RSA key in that form.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        let key = PrivateDecryptingKey::from_pkcs8(der);
        Self::new(key.map_err(|_| Error::Key("no RSA key in PKCS#8"))?)
    }

    fn new(private: PrivateDecryptingKey) -> Result<Self, Error> {
        let unfit = |_| Error::Key("the key is not fit for OAEP");
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(&private.public_key()).map_err(unfit)?;
        let public = der.as_ref().to_vec();
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &public).as_ref());
        Ok(Self {
            private: OaepPrivateDecryptingKey::new(private).map_err(unfit)?,
            public,
            id,
        })
    }

    /// The public key as SubjectPublicKeyInfo in DER, as attestation documents contain it.
    pub fn public_der(&self) -> &[u8] {
        &self.public
    }

    /// Decrypts a `CiphertextForRecipient`, given as bytes.
    ///
    /// # Errors
    /// [`Error::Envelope`] if the format is not that of KMS, [`Error::OtherRecipient`] if it is for
    /// another key, and [`Error::Decrypt`] for all later failures.
    pub fn open(&self, envelope: &[u8]) -> Result<Secret, Error> {
        let envelope = Envelope::parse(envelope)?;
        if envelope.recipient != self.id {
            return Err(Error::OtherRecipient);
        }
        // The sender knows the length, so it reveals nothing.
        if envelope.encrypted_key.len() != self.private.key_size_bytes() {
            return Err(Error::Decrypt);
        }
        let (key, is_key) = self.unwrap(envelope.encrypted_key)?;
        let mut content = Zeroizing::new(envelope.content);
        decrypt_blocks(&key, envelope.iv, &mut content)?;
        let (length, is_padded) = unpad(&content);
        // Key and padding are checked together, so that neither the error nor its timing tells
        // which of them failed.
        if !(is_key & is_padded) {
            return Err(Error::Decrypt);
        }
        content.truncate(length);
        Ok(Secret::new(std::mem::take(&mut *content)))
    }

    /// The content's key; if it cannot be decrypted, a random one, so that the next steps are the
    /// same.
    fn unwrap(&self, encrypted: &[u8]) -> Result<(Zeroizing<[u8; CONTENT_KEY]>, bool), Error> {
        let mut key = Zeroizing::new([0; CONTENT_KEY]);
        aws_lc_rs::rand::fill(key.as_mut_slice()).map_err(|_| Error::Decrypt)?;
        let mut room = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let opened = self
            .private
            .decrypt(&OAEP_SHA256_MGF1SHA256, encrypted, &mut room, None);
        let is_key = match opened {
            Ok(plain) if plain.len() == CONTENT_KEY => {
                key.copy_from_slice(plain);
                true
            }
            _ => false,
        };
        Ok((key, is_key))
    }
}

fn decrypt_blocks(
    key: &[u8; CONTENT_KEY],
    iv: [u8; BLOCK],
    content: &mut [u8],
) -> Result<(), Error> {
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| Error::Decrypt)?;
    let key = DecryptingKey::cbc(key).map_err(|_| Error::Decrypt)?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    key.decrypt(content, context).map_err(|_| Error::Decrypt)?;
    Ok(())
}

/// The length without PKCS#7 padding (RFC 5652 section 6.3), and whether the padding is right.
///
/// Takes the same time for every content of the same length.
fn unpad(content: &[u8]) -> (usize, bool) {
    let Some((block, pad)) = content.last_chunk::<BLOCK>().zip(content.last().copied()) else {
        return (0, false);
    };
    // A comparison of 16-bit numbers without a branch: true is all ones in the high byte.
    let below = |a: u8, b: u8| (u16::from(a).wrapping_sub(u16::from(b)) >> 8) as u8;
    let mut wrong = below(pad, 1) | below(BLOCK as u8, pad);
    for (back, byte) in (0u8..).zip(block.iter().rev()) {
        wrong |= below(back, pad) & (byte ^ pad);
    }
    let length = content.len().saturating_sub(usize::from(pad));
    (length, std::hint::black_box(wrong) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paddings_are_judged_as_the_standard_says() {
        for pad in 0..=255u8 {
            let mut block = [0xaa; 32];
            let from = 32usize.saturating_sub(usize::from(pad));
            block[from..].fill(pad);
            block[31] = pad;
            let (length, fine) = unpad(&block);
            assert_eq!(fine, (1..=16).contains(&pad), "{pad}");
            if fine {
                assert_eq!(length, from);
                for place in from..31 {
                    let mut broken = block;
                    broken[place] ^= 0x10;
                    assert!(!unpad(&broken).1, "{pad} at {place}");
                }
            }
        }
        assert!(!unpad(&[]).1 && !unpad(&[1]).1);
    }
}
