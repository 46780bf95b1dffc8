//! DNS names, in the one form that everything else compares.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// The name that stands for the host's loopback interface, in policies, lookups and requests.
pub const HOST_ALIAS: &str = "host";

/// Longest label (RFC 1035 2.3.4).
pub const MAX_LABEL: usize = 63;

/// A DNS name: lower case, A-labels only, no final dot, at most 253 characters.
///
/// Letters, digits, hyphens and underscores are the only characters (`_dmarc.example.com` is a
/// name). The last label is never a number: such a "name" is an address in disguise, and
/// resolvers and URL parsers disagree on what it means.
///
/// Two names are equal exactly when DNS treats them as equal. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(Arc<str>);

/// Why a text is not a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DnsNameError {
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

impl DnsName {
    /// Longest name in its text form without the final dot (RFC 1035 2.3.4: 255 octets on the
    /// wire).
    pub const MAX_LEN: usize = 253;

    /// Reads a name, with or without the final dot, in any case, in Unicode or in A-labels.
    ///
    /// # Errors
    /// The text is no name that DNS could carry for a host.
    pub fn parse(text: &str) -> Result<Self, DnsNameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(DnsNameError::Empty);
        }
        Self::from_ascii(&to_ascii(text)?)
    }

    /// Reads a name from the labels of a DNS message, in any case.
    ///
    /// A label may hold any bytes there, also a dot or an escape that would read like another name
    /// as text. Only labels of letters, digits, hyphens and underscores are taken.
    ///
    /// # Errors
    /// The labels are no name of a host; the root is none.
    pub fn from_labels<'a>(
        labels: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, DnsNameError> {
        let mut buffer = [0_u8; Self::MAX_LEN];
        let mut length = 0;
        for label in labels {
            if length > 0 {
                *buffer.get_mut(length).ok_or(DnsNameError::TooLong)? = b'.';
                length += 1;
            }
            let end = length + label.len();
            let place = buffer.get_mut(length..end).ok_or(DnsNameError::TooLong)?;
            for (to, byte) in place.iter_mut().zip(label) {
                if !is_name_char(char::from(*byte)) {
                    return Err(DnsNameError::BadCharacter(char::from(*byte)));
                }
                *to = byte.to_ascii_lowercase();
            }
            length = end;
        }
        if length == 0 {
            return Err(DnsNameError::Empty);
        }
        let bytes = buffer.get(..length).ok_or(DnsNameError::TooLong)?;
        let text = std::str::from_utf8(bytes).map_err(|_| DnsNameError::Idna)?;
        Self::from_ascii(&to_ascii(text)?)
    }

    /// The last checks, on a name of valid characters in lower case.
    fn from_ascii(ascii: &str) -> Result<Self, DnsNameError> {
        if ascii.len() > Self::MAX_LEN {
            return Err(DnsNameError::TooLong);
        }
        let mut last = "";
        for label in ascii.split('.') {
            check_label(label)?;
            last = label;
        }
        if is_numeric_label(last) {
            return Err(DnsNameError::LooksLikeAddress);
        }
        Ok(Self(Arc::from(ascii)))
    }

    /// The name as text: lower case, A-labels, no final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from left to right, none empty.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether this is [`HOST_ALIAS`], the name of the host's loopback interface.
    #[must_use]
    pub fn is_host_alias(&self) -> bool {
        &*self.0 == HOST_ALIAS
    }

    /// Whether this is `localhost` or below it (RFC 6761 6.3).
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.is_within("localhost")
    }

    /// Whether this is `zone` or below it; `zone` is in lower case without a final dot.
    #[must_use]
    pub fn is_within(&self, zone: &str) -> bool {
        self.0
            .strip_suffix(zone)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsName({})", self.0)
    }
}

impl std::str::FromStr for DnsName {
    type Err = DnsNameError;

    fn from_str(text: &str) -> Result<Self, DnsNameError> {
        Self::parse(text)
    }
}

impl AsRef<str> for DnsName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Converts a name or a pattern to lower case and A-labels (UTS 46).
///
/// Names of plain ASCII without an `xn--` label skip IDNA: it would not change them.
///
/// # Errors
/// A character that no name has, or text that IDNA does not allow. Lengths are not checked.
pub fn to_ascii(text: &str) -> Result<Cow<'_, str>, DnsNameError> {
    let plain = text.is_ascii() && !has_ace_label(text);
    if plain {
        if let Some(bad) = text.chars().find(|c| !is_name_char(*c) && *c != '.') {
            return Err(DnsNameError::BadCharacter(bad));
        }
        return Ok(if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        });
    }
    // Real names have hyphens in places that UTS 46 forbids. The caller checks lengths, and says
    // which part is too long.
    let ascii = Uts46::new()
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::Allow,
            DnsLength::Ignore,
        )
        .map_err(|_| DnsNameError::Idna)?;
    if let Some(bad) = ascii.chars().find(|c| !is_name_char(*c) && *c != '.') {
        return Err(DnsNameError::BadCharacter(bad));
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

/// Checks the length of a label.
///
/// # Errors
/// The label is empty or longer than [`MAX_LABEL`].
pub fn check_label(label: &str) -> Result<(), DnsNameError> {
    if label.is_empty() {
        Err(DnsNameError::EmptyLabel)
    } else if label.len() > MAX_LABEL {
        Err(DnsNameError::LabelTooLong)
    } else {
        Ok(())
    }
}

/// Whether URL parsers take a host with this last label for an IPv4 address.
///
/// Such a label is all digits, or `0x` and hexadecimal digits.
#[must_use]
pub fn is_numeric_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    if let Some(hex) = bytes
        .strip_prefix(b"0x")
        .or_else(|| bytes.strip_prefix(b"0X"))
    {
        return hex.iter().all(u8::is_ascii_hexdigit);
    }
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

/// Whether a label can have a character: a letter, a digit, `-` or `_`.
#[must_use]
pub fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, DnsNameError> {
        DnsName::parse(text).map(|n| n.as_str().to_owned())
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
            ("", DnsNameError::Empty),
            (".", DnsNameError::Empty),
            ("a..b", DnsNameError::EmptyLabel),
            (".a", DnsNameError::EmptyLabel),
            ("a b.example", DnsNameError::BadCharacter(' ')),
            ("a/b", DnsNameError::BadCharacter('/')),
            ("*.example", DnsNameError::BadCharacter('*')),
            ("a\0.example", DnsNameError::BadCharacter('\0')),
            ("10.0.0.300", DnsNameError::LooksLikeAddress),
            ("a.0x7f", DnsNameError::LooksLikeAddress),
            ("2130706433", DnsNameError::LooksLikeAddress),
            ("xn--a.example", DnsNameError::Idna),
            (long_label.as_str(), DnsNameError::LabelTooLong),
            (long_name.as_str(), DnsNameError::TooLong),
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
            assert_eq!(
                DnsName::parse(name).unwrap().is_localhost(),
                wanted,
                "{name}"
            );
        }
    }

    #[test]
    fn labels_of_a_message_are_a_name_only_if_they_read_as_one() {
        let read = |labels: &[&[u8]]| {
            DnsName::from_labels(labels.iter().copied()).map(|name| name.as_str().to_owned())
        };
        let fine = read(&[b"API", b"_x-1", b"Example", b"cOm"]);
        assert_eq!(fine.as_deref(), Ok("api._x-1.example.com"));
        for bad in [
            &[&b"api.example"[..], b"com"][..],
            &[b"api\\.example", b"com"],
            &[b"a\0", b"com"],
            &["é".as_bytes(), b"com"],
            &[b"*", b"com"],
            &[b" a", b"com"],
            &[b"10", b"0", b"0", b"1"],
            &[b"a", b"0"],
            &[b"a", b"0x7f"],
            &[b"xn--a", b"com"],
            &[],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        let label = [b'a'; 63];
        assert!(read(&[&label, &label, &label, &label[..61]]).is_ok());
        assert_eq!(
            read(&[&label, &label, &label, &label[..62]]),
            Err(DnsNameError::TooLong)
        );
    }
}
