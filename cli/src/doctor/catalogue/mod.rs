//! Everything that doctor looks at: what it is, who needs it, and what to set when it is not there.
//!
//! The options follow the kernel's own Kconfig files. Some cannot be set by hand because another
//! one brings them (`NFT_REJECT_INET` comes with `NFT_REJECT`), some cannot be set before others
//! (`NFT_FIB_INET` after `NFT_FIB_IPV4`): [`Wanted`] tells what must be there from what to set.

mod checks;

pub use self::checks::Id;
use crate::doctor::check::Need;

/// A kernel option that must be set.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// One of these in the configuration is enough. Without the prefix `CONFIG_`.
    pub any: &'static [&'static str],
    /// What a person sets to get there.
    pub ask: &'static [&'static str],
}

/// What is known about a check beforehand.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it is.
    pub title: &'static str,
    /// Who needs it.
    pub needed_by: &'static [Need],
    /// Whether those can do without it.
    pub optional: bool,
    /// What for.
    pub needed_for: &'static str,
    /// Kernel options, all of them.
    pub options: &'static [Wanted],
    /// The oldest kernel, as major and minor number.
    pub since: Option<(u32, u32)>,
    /// What else helps, if anything.
    pub hint: &'static str,
}

impl Entry {
    /// Whether this need cannot be met without it.
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
