//! The catalogue of checks: what each is, what needs it, and how to get it.
//!
//! The options follow the kernel's Kconfig files. Some cannot be set by hand because another one
//! brings them (`NFT_REJECT_INET` comes with `NFT_REJECT`), some cannot be set before others
//! (`NFT_FIB_INET` after `NFT_FIB_IPV4`). [`Wanted`] therefore has what must be present and what a
//! person sets.

mod checks;

pub use self::checks::Id;
use crate::doctor::check::Need;

/// A kernel option that must be set.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// One of these options must be in the configuration. Without the prefix `CONFIG_`.
    pub any: &'static [&'static str],
    /// The options that a person sets to get it.
    pub ask: &'static [&'static str],
}

/// The facts about a check that do not depend on the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The title.
    pub title: &'static str,
    /// The things that need it.
    pub needed_by: &'static [Need],
    /// Whether these work without it, too.
    pub optional: bool,
    /// The purpose, as text.
    pub needed_for: &'static str,
    /// The kernel options, all of which are needed.
    pub options: &'static [Wanted],
    /// The oldest kernel, as major and minor number.
    pub since: Option<(u32, u32)>,
    /// Other remedies; may be empty.
    pub hint: &'static str,
}

impl Entry {
    /// Whether `need` requires this check.
    pub fn required_by(&self, need: Need) -> bool {
        !self.optional && self.needed_by.contains(&need)
    }

    const fn hint(self, hint: &'static str) -> Self {
        Entry { hint, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_named_as_it_is_serialised() {
        for id in Id::ALL {
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(json, format!("{:?}", id.name()));
            let back: Id = serde_json::from_str(&json).unwrap();
            assert_eq!(back, id);
        }
    }
}
