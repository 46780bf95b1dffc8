//! The identity that a guest claims.
//!
//! The name is for people and for the operator's settings. It is only a claim of the guest. The run
//! identifies one life of odyn-net, so that connections of two lives are never mixed.

use std::fmt;
use std::str::FromStr;

/// Header with the name.
pub const GUEST: &str = "odyn-guest";

/// Header with the run.
pub const RUN: &str = "odyn-run";

/// Longest name, in bytes.
pub const MAX_NAME: usize = 64;

/// A guest's name: letters, digits, `.`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestName(String);

/// The text is not a [`GuestName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a guest's name has 1 to {MAX_NAME} letters, digits, dots, dashes and underscores")]
pub struct NameError;

impl GuestName {
    /// The name nearest to a text: other characters become dashes.
    pub fn nearest(text: &str) -> Self {
        let name: String = text
            .chars()
            .take(MAX_NAME)
            .map(|c| if is_name_char(c) { c } else { '-' })
            .collect();
        if name.is_empty() {
            Self("guest".into())
        } else {
            Self(name)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

impl FromStr for GuestName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fits = (1..=MAX_NAME).contains(&text.len()) && text.chars().all(is_name_char);
        fits.then(|| Self(text.to_owned())).ok_or(NameError)
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of odyn-net: 128 random bits, 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId([u8; 16]);

/// The text is not a [`RunId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run has 32 lower-case hex digits")]
pub struct RunError;

impl RunId {
    /// A run of these bits, which the caller has got from the kernel's random numbers.
    pub const fn new(bits: [u8; 16]) -> Self {
        Self(bits)
    }
}

impl FromStr for RunId {
    type Err = RunError;

    fn from_str(text: &str) -> Result<Self, RunError> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(RunError);
        }
        let mut bits = [0; 16];
        for (byte, pair) in bits.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(RunError),
                };
                *byte = *byte << 4 | value;
            }
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The identity of a guest, as the guest claims it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The name.
    pub name: GuestName,
    /// The run.
    pub run: RunId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "db-1.eu_west", &"x".repeat(64)] {
            assert_eq!(good.parse::<GuestName>().unwrap().as_str(), good);
            assert_eq!(GuestName::nearest(good).as_str(), good);
        }
        for bad in ["", "a b", "a:1", "a=1", "é", "a\n", &"x".repeat(65)] {
            assert_eq!(bad.parse::<GuestName>(), Err(NameError), "{bad:?}");
            let nearest = GuestName::nearest(bad);
            assert_eq!(nearest.as_str().parse(), Ok(nearest.clone()), "{bad:?}");
        }
    }

    #[test]
    fn runs_are_written_and_read() {
        let run = RunId::new(std::array::from_fn(|i| i as u8 * 17));
        assert_eq!(run.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(run.to_string().parse(), Ok(run));
        for bad in [
            "",
            "0",
            &"0".repeat(31),
            &"0".repeat(33),
            &"A".repeat(32),
            &"g".repeat(32),
            &"é".repeat(16),
        ] {
            assert_eq!(bad.parse::<RunId>(), Err(RunError), "{bad:?}");
        }
    }
}
