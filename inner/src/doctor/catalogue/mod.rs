//! Everything that doctor looks at: what it is, who needs it, and what to set when it is not there.
//!
//! The options follow the kernel's own Kconfig files. Some cannot be set by hand because another
//! one brings them (`NFT_REJECT_INET` comes with `NFT_REJECT`), some cannot be set before others
//! (`NFT_FIB_INET` after `NFT_FIB_IPV4`): [`Wanted`] tells what must be there from what to set.

mod entries;

use serde::{Deserialize, Serialize};

use super::check::Need;

/// Names a check in reports and between the processes of doctor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is described by its entry")]
pub enum Id {
    NfTables,
    NftNat,
    NftRoute,
    NftFib,
    NftReject,
    NftTproxy,
    NftLog,
    RoutingRules,
    NftCapture,
    Tun,
    OtherInterfaces,
    Loopback,
    Ipv6,
    NetAdmin,
    NetRaw,
    Proc,
    Seccomp,
    Runtime,
    SetUser,
    SysAdmin,
    ResolvConf,
    OpenFiles,
    Vsock,
    VsockCid,
    VsockLoopback,
    Nsm,
    Namespaces,
}

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

impl Id {
    /// All checks in the order of the report.
    pub const ALL: [Id; 27] = [
        Id::NfTables,
        Id::NftNat,
        Id::NftRoute,
        Id::NftFib,
        Id::NftReject,
        Id::NftTproxy,
        Id::NftLog,
        Id::RoutingRules,
        Id::NftCapture,
        Id::Tun,
        Id::OtherInterfaces,
        Id::Loopback,
        Id::Ipv6,
        Id::NetAdmin,
        Id::NetRaw,
        Id::Proc,
        Id::Seccomp,
        Id::Runtime,
        Id::SetUser,
        Id::SysAdmin,
        Id::ResolvConf,
        Id::OpenFiles,
        Id::Vsock,
        Id::VsockCid,
        Id::VsockLoopback,
        Id::Nsm,
        Id::Namespaces,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        entries::ENTRIES[self as usize].1
    }

    /// What is known about it.
    pub fn entry(self) -> &'static Entry {
        &entries::ENTRIES[self as usize].2
    }
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
    fn every_check_has_its_own_entry_and_is_named_as_it_is_serialised() {
        for (index, id) in Id::ALL.iter().enumerate() {
            assert_eq!(*id as usize, index, "{}", id.name());
            assert_eq!(entries::ENTRIES[index].0, *id);
            let json = serde_json::to_string(id).unwrap();
            assert_eq!(json, format!("{:?}", id.name()));
        }
    }
}
