//! DNS names in the one form that everything else compares.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// Longest name in its text form without the final dot (RFC 1035 2.3.4: 255 octets on the wire).
pub(crate) const MAX_NAME: usize = 253;
/// Longest label (RFC 1035 2.3.4).
pub(crate) const MAX_LABEL: usize = 63;

/// A DNS name: lower case, A-labels only, no final dot, at most 253 characters.
///
/// Letters, digits, hyphens and underscores are the only characters (`_dmarc.example.com` is a
/// name). The last label is never a number: such a "name" is an address in disguise, and
/// resolvers and URL parsers disagree on what it means.
///
/// Two names are equal exactly when DNS treats them as equal. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No text, or the root alone.
    #[error("the name is empty")]
    Empty,
    /// Over 253 characters.
    #[error("the name is longer than 253 characters")]
    TooLong,
    /// Two dots in a row, or one at the start.
    #[error("the name has an empty label (a dot too many)")]
    EmptyLabel,
    /// A label of over 63 characters.
    #[error("a label of the name is longer than 63 characters")]
    LabelTooLong,
    /// A character that no host name has.
    #[error("{0:?} can't be part of a DNS name")]
    BadCharacter(char),
    /// Not valid under IDNA (UTS 46), as text or as an `xn--` label.
    #[error("the name is not a valid internationalised name (IDNA)")]
    Idna,
    /// The last label is a number.
    #[error("the name ends in a number, so it reads as an address")]
    LooksLikeAddress,
}

impl Name {
    /// Reads a name, with or without the final dot, in any case, in Unicode or in A-labels.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the text is no name that DNS could carry for a host.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let ascii = to_ascii(text)?;
        if ascii.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        let mut last = "";
        for label in ascii.split('.') {
            check_label(label)?;
            last = label;
        }
        if is_numeric_label(last) {
            return Err(NameError::LooksLikeAddress);
        }
        Ok(Self(Arc::from(ascii.as_ref())))
    }

    /// The name as text: lower case, A-labels, no final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `host`, the alias of the parent's loopback.
    #[must_use]
    pub fn is_host_alias(&self) -> bool {
        &*self.0 == crate::HOST_ALIAS
    }

    /// Whether this is `localhost` or below it (RFC 6761 6.3).
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        match self.0.strip_suffix("localhost") {
            Some(rest) => rest.is_empty() || rest.ends_with('.'),
            None => false,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lower case and A-labels. Plain ASCII without `xn--` takes no part in IDNA, so the long way is
/// left to the few names that need it.
pub(crate) fn to_ascii(text: &str) -> Result<Cow<'_, str>, NameError> {
    let plain = text.is_ascii() && !has_ace_label(text);
    if plain {
        if let Some(bad) = text.chars().find(|c| !is_name_char(*c) && *c != '.') {
            return Err(NameError::BadCharacter(bad));
        }
        return Ok(if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        });
    }
    // Hyphens as they come: real names have them in places that UTS 46 would rather not see.
    // Length is checked by the caller, who says which part is too long.
    let ascii = Uts46::new()
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::Allow,
            DnsLength::Ignore,
        )
        .map_err(|_| NameError::Idna)?;
    if let Some(bad) = ascii.chars().find(|c| !is_name_char(*c) && *c != '.') {
        return Err(NameError::BadCharacter(bad));
    }
    Ok(ascii)
}

fn has_ace_label(text: &str) -> bool {
    text.split('.').any(|label| {
        label
            .as_bytes()
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"xn--"))
    })
}

pub(crate) fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        Err(NameError::EmptyLabel)
    } else if label.len() > MAX_LABEL {
        Err(NameError::LabelTooLong)
    } else {
        Ok(())
    }
}

/// Whether a URL parser would take a host with this last label for an IPv4 address: all digits,
/// or `0x` and hexadecimal digits.
pub(crate) fn is_numeric_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    if let Some(hex) = bytes
        .strip_prefix(b"0x")
        .or_else(|| bytes.strip_prefix(b"0X"))
    {
        return hex.iter().all(u8::is_ascii_hexdigit);
    }
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

pub(crate) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, NameError> {
        Name::parse(text).map(|n| n.as_str().to_owned())
    }

    #[test]
    fn one_form_for_every_spelling() {
        for (given, wanted) in [
            ("API.Stripe.com", "api.stripe.com"),
            ("api.stripe.com.", "api.stripe.com"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("_sip._tcp.example.com", "_sip._tcp.example.com"),
            ("Bücher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("bücher。example", "xn--bcher-kva.example"),
            ("r3---sn-abc.example", "r3---sn-abc.example"),
            ("host", "host"),
            ("1.example", "1.example"),
        ] {
            assert_eq!(parse(given).as_deref(), Ok(wanted), "{given}");
        }
    }

    #[test]
    fn what_is_no_name() {
        let long_label = "a".repeat(64);
        let long_name = format!("{}.example", vec!["a".repeat(60); 5].join("."));
        for (given, wanted) in [
            ("", NameError::Empty),
            (".", NameError::Empty),
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a b.example", NameError::BadCharacter(' ')),
            ("a/b", NameError::BadCharacter('/')),
            ("*.example", NameError::BadCharacter('*')),
            ("a\0.example", NameError::BadCharacter('\0')),
            ("10.0.0.300", NameError::LooksLikeAddress),
            ("a.0x7f", NameError::LooksLikeAddress),
            ("2130706433", NameError::LooksLikeAddress),
            ("xn--a.example", NameError::Idna),
            (long_label.as_str(), NameError::LabelTooLong),
            (long_name.as_str(), NameError::TooLong),
        ] {
            assert_eq!(parse(given), Err(wanted), "{given}");
        }
    }

    #[test]
    fn localhost_and_what_is_below_it() {
        for (name, wanted) in [
            ("localhost", true),
            ("a.localhost", true),
            ("notlocalhost", false),
            ("localhost.example", false),
        ] {
            assert_eq!(Name::parse(name).unwrap().is_localhost(), wanted, "{name}");
        }
    }
}
