//! Judges a kernel by its configuration.

use std::collections::BTreeMap;

use crate::doctor::catalogue::{Entry, Id, Wanted};
use crate::doctor::check::Finding;
use crate::doctor::kernel_config::parse::{KernelConfig, Setting};

/// Judges every check that depends on the configuration, and no other.
pub(in crate::doctor) fn evaluate(config: &KernelConfig) -> BTreeMap<Id, Finding> {
    let mut findings = BTreeMap::new();
    for id in Id::ALL {
        let entry = id.entry();
        if !entry.options.is_empty() {
            findings.insert(id, finding(config, entry));
        }
    }
    findings
}

/// The kernel's name in the report.
pub(in crate::doctor) fn name_of(config: &KernelConfig) -> String {
    match &config.release {
        Some(release) => format!("Linux {release}"),
        None => "Linux of an unknown version".into(),
    }
}

fn finding(config: &KernelConfig, entry: &Entry) -> Finding {
    let mut missing = Vec::new();
    let mut modules = Vec::new();
    for wanted in entry.options {
        match best(config, wanted) {
            (_, Setting::BuiltIn) => {}
            (name, Setting::Module) => modules.push(format!("CONFIG_{name}")),
            (_, Setting::No) => missing.push(format!("CONFIG_{}", wanted.any.join(" or CONFIG_"))),
        }
    }
    if !missing.is_empty() {
        return Finding::missing(format!("not set: {}", missing.join(", ")));
    }
    if let (Some(oldest), Some(version)) = (entry.since, config.version())
        && version < oldest
    {
        return Finding::missing(format!("needs Linux {}.{} or newer", oldest.0, oldest.1));
    }
    if modules.is_empty() {
        return Finding::present("");
    }
    if config.setting("MODULES") == Setting::No {
        return Finding::missing(format!(
            "a module, but this kernel loads none (CONFIG_MODULES): {}",
            modules.join(", ")
        ));
    }
    Finding::present(format!(
        "a module, which must be in the image and loadable: {}",
        modules.join(", ")
    ))
}

fn best(config: &KernelConfig, wanted: &Wanted) -> (&'static str, Setting) {
    let mut best = ("", Setting::No);
    for name in wanted.any {
        match (config.setting(name), best.1) {
            (Setting::BuiltIn, _) => return (name, Setting::BuiltIn),
            (Setting::Module, Setting::No) => best = (name, Setting::Module),
            _ => {}
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;
    use crate::doctor::check::Verdict;

    const DEBIAN: &str = include_str!("fixtures/debian-cloud-6.1.config");
    const NITRO_CLI: &str = include_str!("fixtures/nitro-cli-4.14.config");
    const SDK: &str = include_str!("fixtures/sdk-bootstrap-6.6.config");

    const NFTABLES: [Id; 7] = [
        Id::NfTables,
        Id::NftNat,
        Id::NftRoute,
        Id::NftFib,
        Id::NftReject,
        Id::NftTproxy,
        Id::NftLog,
    ];

    fn findings(text: &str) -> BTreeMap<Id, Finding> {
        evaluate(&parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn debians_cloud_kernel_has_everything() {
        for (id, finding) in findings(DEBIAN) {
            // The driver of the security module has been in Linux since 6.8.
            let expected = match id {
                Id::Nsm => Verdict::Missing,
                _ => Verdict::Present,
            };
            assert_eq!(finding.verdict, expected, "{}: {finding:?}", id.name());
        }
        let modules = &findings(DEBIAN)[&Id::NftNat].detail;
        assert!(modules.contains("CONFIG_NFT_NAT"), "{modules}");
    }

    #[test]
    fn stock_enclave_kernels_have_tun_and_no_nf_tables() {
        for text in [NITRO_CLI, SDK] {
            let found = findings(text);
            for id in NFTABLES {
                assert_eq!(found[&id].verdict, Verdict::Missing, "{}", id.name());
            }
            for id in [
                Id::Tun,
                Id::Seccomp,
                Id::Vsock,
                Id::VsockCid,
                Id::RoutingRules,
            ] {
                assert_eq!(found[&id].verdict, Verdict::Present, "{}", id.name());
            }
        }
        let loopback = |text| findings(text)[&Id::VsockLoopback].verdict;
        assert_eq!(loopback(NITRO_CLI), Verdict::Missing);
        assert_eq!(loopback(SDK), Verdict::Present);
    }

    #[test]
    fn every_single_option_counts() {
        for option in [
            "NF_TABLES_INET",
            "NFT_NAT",
            "NFT_TPROXY",
            "NFT_FIB_INET",
            "NFT_LOG",
            "TUN",
        ] {
            let without = DEBIAN.replace(&format!("\nCONFIG_{option}="), "\nCONFIG_GONE_");
            assert_ne!(without, DEBIAN, "{option}");
            let lost: Vec<_> = findings(&without)
                .into_iter()
                .filter(|(id, finding)| *id != Id::Nsm && finding.verdict == Verdict::Missing)
                .collect();
            assert_eq!(lost.len(), 1, "{option}: {lost:?}");
            assert!(lost[0].1.detail.contains(option), "{lost:?}");
        }
    }

    #[test]
    fn a_module_needs_a_kernel_that_loads_modules() {
        let without = DEBIAN.replace("\nCONFIG_MODULES=y", "\n# CONFIG_MODULES is not set");
        assert_eq!(findings(&without)[&Id::Tun].verdict, Verdict::Missing);
        assert_eq!(findings(&without)[&Id::Seccomp].verdict, Verdict::Present);
    }

    #[test]
    fn nat_in_tables_of_family_inet_came_with_5_2() {
        let old = DEBIAN.replace("Linux/x86 6.1", "Linux/x86 5.1");
        assert_ne!(old, DEBIAN);
        let nat = &findings(&old)[&Id::NftNat];
        assert_eq!(nat.verdict, Verdict::Missing);
        assert_eq!(nat.detail, "needs Linux 5.2 or newer");
        let new = DEBIAN.replace("Linux/x86 6.1", "Linux/x86 5.2");
        assert_eq!(findings(&new)[&Id::NftNat].verdict, Verdict::Present);
    }
}
