//! Canonical names.
//!
//! The policy compares text, DNS compares labels of arbitrary bytes. The two agree only on names
//! made of letters, digits, `-` and `_`: a label may contain a dot or an escape that reads like
//! another name as text. Anything else is a *bad name* and is never judged, only denied.

use std::sync::Arc;

use hickory_proto::rr::Name;

/// Longest canonical name in bytes: 255 on the wire less the first length and the root.
const LONGEST: usize = 253;

/// The name cannot be written as a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a name of letters, digits, hyphens and underscores")]
pub(crate) struct BadName;

/// Lower case, labels joined by dots, no trailing dot.
///
/// # Errors
/// [`BadName`] for the root, for a label with other bytes, and for a last label of digits only,
/// which everything but DNS reads as an IPv4 address (as the WHATWG URL standard also has it).
pub(crate) fn canonical(name: &Name) -> Result<Arc<str>, BadName> {
    let mut buffer = [0_u8; LONGEST];
    let mut length = 0;
    let mut digits_only = true;
    for label in name {
        if length > 0 {
            *buffer.get_mut(length).ok_or(BadName)? = b'.';
            length += 1;
        }
        let end = length + label.len();
        let place = buffer.get_mut(length..end).ok_or(BadName)?;
        digits_only = true;
        for (to, byte) in place.iter_mut().zip(label) {
            *to = match byte {
                b'a'..=b'z' | b'-' | b'_' => {
                    digits_only = false;
                    *byte
                }
                b'A'..=b'Z' => {
                    digits_only = false;
                    byte.to_ascii_lowercase()
                }
                b'0'..=b'9' => *byte,
                _ => return Err(BadName),
            };
        }
        length = end;
    }
    if digits_only {
        return Err(BadName);
    }
    let bytes = buffer.get(..length).ok_or(BadName)?;
    std::str::from_utf8(bytes)
        .map(Arc::from)
        .map_err(|_| BadName)
}

/// The canonical form of a name given as text, with or without a trailing dot.
pub(crate) fn canonical_text(name: &str) -> Result<(Arc<str>, Name), BadName> {
    let name = wire(name.strip_suffix('.').unwrap_or(name))?;
    Ok((canonical(&name)?, name))
}

/// The wire form of a name without a trailing dot. Nothing is an escape: labels end at dots.
pub(crate) fn wire(name: &str) -> Result<Name, BadName> {
    // Every label and dot is a byte on the wire as well; this keeps long junk from being split.
    if name.len() > LONGEST {
        return Err(BadName);
    }
    Name::from_labels(name.split('.').map(str::as_bytes)).map_err(|_| BadName)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[&[u8]]) -> Name {
        Name::from_labels(labels.iter().copied()).expect("test labels")
    }

    #[test]
    fn case_and_trailing_dot_are_gone() {
        let name = labels(&[b"API", b"_x-1", b"Example", b"cOm"]);
        assert_eq!(canonical(&name).as_deref(), Ok("api._x-1.example.com"));
        let (text, wire) = canonical_text("API.Example.com.").expect("a good name");
        assert_eq!(&*text, "api.example.com");
        assert!(wire.is_fqdn());
    }

    #[test]
    fn labels_that_read_like_other_names_are_bad() {
        for bad in [
            labels(&[b"api.example", b"com"]),
            labels(&[b"api\\.example", b"com"]),
            labels(&[b"a\0", b"com"]),
            labels(&["é".as_bytes(), b"com"]),
            labels(&[b"*", b"com"]),
            labels(&[b" a", b"com"]),
            labels(&[b"10", b"0", b"0", b"1"]),
            labels(&[b"a", b"0"]),
            Name::root(),
        ] {
            assert_eq!(canonical(&bad), Err(BadName), "{bad}");
        }
        for bad in ["a\\.b.com", "a..com", "", ".", "a b.com", "é.com"] {
            assert!(canonical_text(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_name_is_fine() {
        let label = [b'a'; 63];
        let long = labels(&[&label, &label, &label, &label[..60]]);
        let text = canonical(&long).expect("long name");
        assert_eq!(wire(&text).expect("wire"), long);
    }
}
