//! The parser, a cursor that checks each next element. It allocates for the chunks only.

use super::{
    AES_256_CBC, BLOCK, CONTEXT_0_OPEN, END, MAX_ENVELOPE, OAEP_SHA256, OID_DATA,
    OID_ENVELOPED_DATA, SEQUENCE_OPEN, VERSION_2,
};
use crate::Error;

const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// \[0\] IMPLICIT, primitive: subjectKeyIdentifier, and content in one piece.
const CONTEXT_0: u8 = 0x80;

/// The content of an envelope, still encrypted.
#[derive(Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// SHA-256 of the recipient's public key.
    pub recipient: [u8; 32],
    /// The encrypted key of the content.
    pub encrypted_key: &'a [u8],
    /// The initialisation vector.
    pub iv: [u8; BLOCK],
    /// The content: whole blocks, at least one.
    pub content: Vec<u8>,
}

impl<'a> Envelope<'a> {
    /// Reads an envelope.
    ///
    /// # Errors
    /// [`Error::Envelope`] at the first byte that KMS would not send.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut at = BerCursor { bytes, at: 0 };
        if bytes.len() > MAX_ENVELOPE {
            return Err(at.wanted("an envelope of at most 64 KiB"));
        }
        at.expect(SEQUENCE_OPEN, "ContentInfo")?;
        at.expect(OID_ENVELOPED_DATA, "envelopedData")?;
        at.expect(CONTEXT_0_OPEN, "[0] of indefinite length")?;
        at.expect(SEQUENCE_OPEN, "EnvelopedData")?;
        at.expect(VERSION_2, "version 2")?;
        let (recipient, encrypted_key) = recipient(&mut at)?;
        at.expect(SEQUENCE_OPEN, "EncryptedContentInfo")?;
        at.expect(OID_DATA, "data")?;
        at.expect(AES_256_CBC, "AES-256-CBC")?;
        let iv = at.array("an initialisation vector")?;
        let start = at.at;
        let content = content(&mut at)?;
        if content.is_empty() || content.len() % BLOCK != 0 {
            at.at = start;
            return Err(at.wanted("content of whole blocks"));
        }
        for _ in 0..4 {
            at.expect(END, "end of contents")?;
        }
        if at.at != bytes.len() {
            return Err(at.wanted("the end"));
        }
        Ok(Self {
            recipient,
            encrypted_key,
            iv,
            content,
        })
    }
}

/// RecipientInfos: one KeyTransRecipientInfo.
fn recipient<'a>(at: &mut BerCursor<'a>) -> Result<([u8; 32], &'a [u8]), Error> {
    let mut set = at.element(SET, "RecipientInfos")?;
    let mut info = set.element(SEQUENCE, "KeyTransRecipientInfo")?;
    set.end("one recipient")?;
    info.expect(VERSION_2, "version 2")?;
    let mut id = info.element(CONTEXT_0, "subjectKeyIdentifier")?;
    let recipient = id.array("32 bytes of an identifier")?;
    id.end("32 bytes of an identifier")?;
    info.expect(OAEP_SHA256, "RSAES-OAEP with SHA-256")?;
    let key = info.element(OCTET_STRING, "encryptedKey")?;
    info.end("the end of the recipient")?;
    Ok((recipient, key.rest()))
}

/// The content, in one piece or in chunks.
fn content(at: &mut BerCursor<'_>) -> Result<Vec<u8>, Error> {
    if !at.starts_with(CONTEXT_0_OPEN) {
        let content = at.element(CONTEXT_0, "encryptedContent")?;
        return Ok(content.rest().to_vec());
    }
    at.expect(CONTEXT_0_OPEN, "encryptedContent")?;
    let mut content = Vec::new();
    while !at.starts_with(END) {
        let chunk = at.element(OCTET_STRING, "a chunk of content")?;
        content.extend_from_slice(chunk.rest());
    }
    at.expect(END, "end of contents")?;
    Ok(content)
}

/// A position in the input; `bytes` ends where the current element ends.
struct BerCursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BerCursor<'a> {
    fn wanted(&self, what: &'static str) -> Error {
        Error::Envelope { what, at: self.at }
    }

    fn rest(&self) -> &'a [u8] {
        debug_assert!(self.at <= self.bytes.len());
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn starts_with(&self, wanted: &[u8]) -> bool {
        self.rest().starts_with(wanted)
    }

    fn expect(&mut self, wanted: &[u8], what: &'static str) -> Result<(), Error> {
        if !self.starts_with(wanted) {
            return Err(self.wanted(what));
        }
        self.at += wanted.len();
        Ok(())
    }

    fn end(&self, what: &'static str) -> Result<(), Error> {
        match self.rest() {
            [] => Ok(()),
            _ => Err(self.wanted(what)),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let array = self.rest().first_chunk().copied();
        let array = array.ok_or_else(|| self.wanted(what))?;
        self.at += N;
        Ok(array)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Error> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// Enters an element of definite length and steps over it.
    fn element(&mut self, tag: u8, what: &'static str) -> Result<Self, Error> {
        let start = self.at;
        let fail = |this: &mut Self| {
            this.at = start;
            this.wanted(what)
        };
        if self.byte(what)? != tag {
            return Err(fail(self));
        }
        let Some(length) = self.length(what)? else {
            return Err(fail(self));
        };
        let from = self.at;
        match from.checked_add(length) {
            Some(to) if to <= self.bytes.len() => {
                self.at = to;
                Ok(Self {
                    bytes: &self.bytes[..to],
                    at: from,
                })
            }
            _ => Err(fail(self)),
        }
    }

    /// A definite length of up to two bytes in its shortest form (X.690 section 8.1.3); none for
    /// others.
    fn length(&mut self, what: &'static str) -> Result<Option<usize>, Error> {
        Ok(match self.byte(what)? {
            short @ 0..=0x7f => Some(usize::from(short)),
            0x81 => Some(usize::from(self.byte(what)?)).filter(|length| *length > 0x7f),
            0x82 => {
                let length = usize::from(u16::from_be_bytes(self.array(what)?));
                Some(length).filter(|length| *length > 0xff)
            }
            _ => None,
        })
    }
}
