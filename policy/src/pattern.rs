//! Name patterns: `example.com`, `*.example.com`, `**.example.com`, `api-*.example.com`.
//!
//! A `*` label matches exactly one label, a `**` label one or more. A `*` inside a label matches
//! any run of characters of that label, also none. A pattern has at most one `**`, so that a match
//! never has to try one split after another.
//!
//! A few lines over string slices match inside a label, in place of a compiled glob per rule: 100
//! 000 of those take seconds to build and hundreds of megabytes, and allocate for each match. The
//! independent reference of the tests uses `globset` (crate `odyn-policy-reference`).

use std::fmt;

use odyn_proto::{DnsName, DnsNameError, dns_name};

/// The names that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// One name.
    Exact(DnsName),
    /// Labels from left to right, at least one of which is not literal.
    Wild(Box<[Label]>),
}

/// One label of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Label {
    Literal(Box<str>),
    /// `*`.
    One,
    /// `**`.
    Many,
    /// A label with `*` inside.
    Glob(Glob),
}

/// The literal pieces between the stars of a label, from left to right.
///
/// There are at least two; the first and the last may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Glob(Box<[Box<str>]>);

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error(transparent)]
    Name(#[from] DnsNameError),
    #[error("`**` stands for whole labels, so it can't be part of one")]
    ManyInsideLabel,
    #[error("a pattern can have only one `**`")]
    TwoMany,
    #[error("a label with `*` inside must be plain ASCII")]
    GlobNotAscii,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.contains('*') {
            return Ok(Self::Exact(DnsName::parse(text)?));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut labels = Vec::new();
        let mut shortest = 0;
        let mut many = false;
        // UTS 46 knows three more kinds of dots. They are bad characters in a pattern.
        for part in text.split('.') {
            let label = match part {
                "" => return Err(DnsNameError::EmptyLabel.into()),
                "*" => Label::One,
                "**" if many => return Err(PatternError::TwoMany),
                "**" => {
                    many = true;
                    Label::Many
                }
                _ if part.contains("**") => return Err(PatternError::ManyInsideLabel),
                _ if part.contains('*') => Label::Glob(Glob::parse(part)?),
                _ => {
                    let ascii = dns_name::to_ascii(part)?;
                    dns_name::check_label(&ascii)?;
                    if ascii.contains('.') {
                        return Err(DnsNameError::Idna.into());
                    }
                    Label::Literal(ascii.into())
                }
            };
            shortest += label.min_len() + 1;
            labels.push(label);
        }
        if shortest > DnsName::MAX_LEN + 1 {
            return Err(DnsNameError::TooLong.into());
        }
        match labels.last() {
            Some(Label::Literal(last)) if dns_name::is_numeric_label(last) => {
                Err(DnsNameError::LooksLikeAddress.into())
            }
            _ => Ok(Self::Wild(labels.into_boxed_slice())),
        }
    }

    /// Whether the pattern matches a name in canonical form.
    ///
    /// Decisions must not allocate: they keep the text and use [`matches_text`].
    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.as_str() == name,
            Self::Wild(_) => matches_text(&self.to_string(), name),
        }
    }

    /// The number of literal labels at the right end.
    pub(crate) fn literal_suffix(&self) -> usize {
        match self {
            Self::Exact(name) => name.as_str().split('.').count(),
            Self::Wild(labels) => labels
                .iter()
                .rev()
                .take_while(|l| matches!(l, Label::Literal(_)))
                .count(),
        }
    }

    /// The literal labels at the right end, as text; empty when there are none.
    pub(crate) fn literal_end(&self) -> String {
        match self {
            Self::Exact(name) => name.as_str().to_owned(),
            Self::Wild(labels) => {
                let texts: Vec<&str> = labels
                    .iter()
                    .skip(labels.len() - self.literal_suffix())
                    .filter_map(|label| match label {
                        Label::Literal(text) => Some(&**text),
                        _ => None,
                    })
                    .collect();
                texts.join(".")
            }
        }
    }

    /// The number of literal characters, which measures how specific the pattern is.
    pub(crate) fn literal_chars(&self) -> usize {
        match self {
            Self::Exact(name) => name.as_str().len(),
            Self::Wild(labels) => labels
                .iter()
                .map(|label| match label {
                    Label::Literal(text) => text.len(),
                    Label::Glob(glob) => glob.literal_chars(),
                    Label::One | Label::Many => 0,
                })
                .sum(),
        }
    }

    /// Whether this pattern matches every name that `other` matches.
    ///
    /// It can miss such a pair, but never reports a wrong one.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name.as_str()),
            (Self::Exact(_), Self::Wild(_)) => false,
            (Self::Wild(outer), Self::Wild(inner)) => covers_labels(outer, inner),
        }
    }

    pub(crate) fn has_many(&self) -> bool {
        match self {
            Self::Exact(_) => false,
            Self::Wild(labels) => labels.contains(&Label::Many),
        }
    }
}

/// As [`Pattern::matches`], for a pattern in its canonical text form.
pub(crate) fn matches_text(pattern: &str, name: &str) -> bool {
    let mut labels = pattern.split('.');
    let mut parts = name.split('.');
    loop {
        match labels.next() {
            None => return parts.next().is_none(),
            // From here on both are compared from the right, up to this label.
            Some("**") => break,
            Some(label) => {
                if !parts.next().is_some_and(|part| matches_label(label, part)) {
                    return false;
                }
            }
        }
    }
    while let Some(label) = labels.next_back() {
        if !parts
            .next_back()
            .is_some_and(|part| matches_label(label, part))
        {
            return false;
        }
    }
    parts.next().is_some()
}

/// Matches a label. Its first and last piece are anchored, those between are not.
fn matches_label(label: &str, part: &str) -> bool {
    let mut pieces = label.split('*');
    let Some(first) = pieces.next() else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return first == part;
    };
    let anchored = part
        .strip_prefix(first)
        .and_then(|rest| rest.strip_suffix(last));
    let Some(mut rest) = anchored else {
        return false;
    };
    // Each piece between takes the leftmost position left: a later one never leaves more room.
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

fn covers_labels(outer: &[Label], inner: &[Label]) -> bool {
    let one_to_one = |outer: &[Label], inner: &[Label]| {
        outer.len() == inner.len() && outer.iter().zip(inner).all(|(o, i)| o.covers(i))
    };
    let Some(split) = outer.iter().position(|l| *l == Label::Many) else {
        return one_to_one(outer, inner);
    };
    let (left, right) = outer.split_at(split);
    let right = right.get(1..).unwrap_or_default();
    // At least one label of the other pattern must be left for the `**`.
    let Some(end) = inner
        .len()
        .checked_sub(right.len())
        .filter(|end| *end > split)
    else {
        return false;
    };
    let (Some(inner_left), Some(inner_right)) = (inner.get(..split), inner.get(end..)) else {
        return false;
    };
    one_to_one(left, inner_left) && one_to_one(right, inner_right)
}

impl Label {
    /// Whether this label matches every single label that `other` matches.
    ///
    /// Callers split patterns at `**`, so that no `**` gets here.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Many, _) | (_, Self::Many) => false,
            (Self::One, _) => true,
            (_, Self::Literal(text)) => self.matches(text),
            (Self::Glob(outer), Self::Glob(inner)) => outer.covers(inner),
            _ => false,
        }
    }

    /// Whether this label matches one label of a name. The caller handles `**`.
    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Literal(text) => **text == *part,
            Self::One | Self::Many => true,
            Self::Glob(glob) => glob.matches(part),
        }
    }

    fn min_len(&self) -> usize {
        match self {
            Self::Literal(text) => text.len(),
            Self::One | Self::Many => 1,
            Self::Glob(glob) => glob.literal_chars().max(1),
        }
    }
}

impl Glob {
    fn parse(part: &str) -> Result<Self, PatternError> {
        if !part.is_ascii() {
            return Err(PatternError::GlobNotAscii);
        }
        if let Some(bad) = part
            .chars()
            .find(|c| !dns_name::is_name_char(*c) && *c != '*')
        {
            return Err(DnsNameError::BadCharacter(bad).into());
        }
        let glob = Self(
            part.split('*')
                .map(|p| p.to_ascii_lowercase().into())
                .collect(),
        );
        if glob.literal_chars() > dns_name::MAX_LABEL {
            return Err(DnsNameError::LabelTooLong.into());
        }
        Ok(glob)
    }

    /// Whether this label matches every label that `other` matches.
    ///
    /// With one star in this label, that is so if the other begins and ends the same way.
    fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        match (&*self.0, other.0.first(), other.0.last()) {
            ([first, last], Some(start), Some(end)) => {
                start.starts_with(&**first) && end.ends_with(&**last)
            }
            _ => false,
        }
    }

    pub(crate) fn pieces(&self) -> &[Box<str>] {
        &self.0
    }

    pub(crate) fn literal_chars(&self) -> usize {
        self.0.iter().map(|p| p.len()).sum()
    }

    fn matches(&self, part: &str) -> bool {
        matches_label(&self.to_string(), part)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, piece) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("*")?;
            }
            f.write_str(piece)?;
        }
        Ok(())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::One => f.write_str("*"),
            Self::Many => f.write_str("**"),
            Self::Glob(glob) => glob.fmt(f),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Wild(labels) => {
                for (i, label) in labels.iter().enumerate() {
                    if i > 0 {
                        f.write_str(".")?;
                    }
                    label.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_form_matches() {
        for (pattern, yes, no) in [
            (
                "example.com",
                &["example.com"][..],
                &["a.example.com", "com", "xexample.com"][..],
            ),
            (
                "*.com",
                &["example.com"],
                &["com", "a.example.com", "example.net"],
            ),
            (
                "foo.*.com",
                &["foo.a.com"],
                &["foo.com", "foo.a.b.com", "a.foo.com"],
            ),
            ("**.a.com", &["x.a.com", "x.y.a.com"], &["a.com", "xa.com"]),
            (
                "foo.**.com",
                &["foo.a.com", "foo.a.b.com"],
                &["foo.com", "bar.a.com"],
            ),
            ("**", &["com", "a.b.c"], &[]),
            ("*", &["com"], &["a.com"]),
            ("*.*.com", &["a.b.com"], &["b.com", "a.b.c.com"]),
            ("*.**.com", &["a.b.com", "a.b.c.com"], &["b.com"]),
            (
                "api-*.a.com",
                &["api-1.a.com", "api-.a.com"],
                &["api.a.com", "api-1.b.a.com", "xapi-1.a.com"],
            ),
            (
                "*-x.a.com",
                &["1-x.a.com", "-x.a.com"],
                &["x.a.com", "1-xy.a.com"],
            ),
            (
                "a*b*c.com",
                &["abc.com", "axbxbxc.com"],
                &["ab.com", "acb.com", "abcd.com"],
            ),
            ("a*a.com", &["aa.com", "aba.com"], &["a.com"]),
            ("*ab*.com", &["ab.com", "xabx.com"], &["a.b.com", "ba.com"]),
            (
                "API-*.Bücher.example",
                &["api-1.xn--bcher-kva.example"],
                &["api-1.b.example"],
            ),
        ] {
            let compiled = Pattern::parse(pattern).unwrap();
            for name in yes {
                assert!(compiled.matches(name), "{pattern} should match {name}");
            }
            for name in no {
                assert!(!compiled.matches(name), "{pattern} should not match {name}");
            }
        }
    }

    #[test]
    fn which_covers_which() {
        for (outer, inner, wanted) in [
            ("**", "*", true),
            ("**", "**", true),
            ("*", "**", false),
            ("**.com", "*.com", true),
            ("**.com", "**.a.com", true),
            ("**.com", "a.**.com", true),
            ("**.com", "com", false),
            ("*.com", "**.com", false),
            ("*.com", "a*.com", true),
            ("a*.com", "ab*.com", true),
            ("a*.com", "*.com", false),
            ("a*b.com", "axb*xb.com", true),
            ("a*b.com", "a*.com", false),
            ("*.a.com", "*.b.com", false),
            ("x.**.com", "x.*.com", true),
            ("x.**.com", "x.com", false),
            ("x.**.com", "**.com", false),
            ("**.com", "**", false),
            ("*.*.com", "a.*.com", true),
            ("a*.com", "abc.com", true),
        ] {
            let [o, i] = [outer, inner].map(|t| Pattern::parse(t).unwrap());
            assert_eq!(o.covers(&i), wanted, "{outer} covers {inner}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for (text, wanted) in [
            ("**.a.**", PatternError::TwoMany),
            ("a**.com", PatternError::ManyInsideLabel),
            ("***.com", PatternError::ManyInsideLabel),
            ("*..com", PatternError::Name(DnsNameError::EmptyLabel)),
            (".*.com", PatternError::Name(DnsNameError::EmptyLabel)),
            (
                "*.c om",
                PatternError::Name(DnsNameError::BadCharacter(' ')),
            ),
            (
                "a?*.com",
                PatternError::Name(DnsNameError::BadCharacter('?')),
            ),
            ("ü*.com", PatternError::GlobNotAscii),
            (
                "*.0.0.1",
                PatternError::Name(DnsNameError::LooksLikeAddress),
            ),
        ] {
            assert_eq!(Pattern::parse(text), Err(wanted), "{text}");
        }
    }

    #[test]
    fn shown_in_canonical_form() {
        for (text, wanted) in [
            ("*.Example.COM.", "*.example.com"),
            ("**.bücher.example", "**.xn--bcher-kva.example"),
            ("A*B.example", "a*b.example"),
        ] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), wanted);
        }
    }
}
