//! Concludes from the findings which capture would be used, and what blocks it.

use std::collections::BTreeMap;

use odyn_net::capture::Method;
use serde::Serialize;

use crate::doctor::catalogue::Id;
use crate::doctor::check::{Finding, Need, Verdict};

/// A way to capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// nftables rules.
    Nftables,
    /// A TUN device.
    Tun,
}

impl Backend {
    /// The ways of capture in this build of odyn-net, the preferred one first.
    pub const BUILT_IN: &'static [Backend] = &[Backend::Nftables, Backend::Tun];
    const ALL: [Backend; 2] = [Backend::Nftables, Backend::Tun];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Nftables => "nftables",
            Backend::Tun => "tun",
        }
    }

    const fn need(self) -> Need {
        match self {
            Backend::Nftables => Need::Nftables,
            Backend::Tun => Need::Tun,
        }
    }

    fn built_in(self) -> bool {
        Self::BUILT_IN.contains(&self)
    }
}

fn candidates(wish: Method) -> Vec<Backend> {
    match wish {
        Method::Auto => Backend::BUILT_IN.to_vec(),
        Method::Nftables => vec![Backend::Nftables],
        Method::Tun => vec![Backend::Tun],
    }
}

/// The kind of link that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A link that needs nothing of the kernel.
    Other,
    /// vsock to the host of a virtual machine.
    Vsock,
    /// vsock within one machine.
    VsockLoopback,
}

impl Link {
    const fn requires(self) -> &'static [Id] {
        match self {
            Link::Other => &[],
            Link::Vsock => &[Id::Vsock, Id::VsockCid],
            Link::VsockLoopback => &[Id::Vsock, Id::VsockLoopback],
        }
    }
}

/// The setup that the kernel is checked for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// The capture.
    pub capture: Method,
    /// The link.
    pub link: Link,
}

/// The result of the checks.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// Whether `odyn-net run` would work.
    pub ready: bool,
    /// The capture that would be used.
    pub capture: Option<Backend>,
    /// Each way to capture.
    pub captures: Vec<CaptureState>,
    /// Required checks that do not pass, by name.
    pub blocking: Vec<&'static str>,
    /// The same checks, by id.
    #[serde(skip)]
    pub blocking_ids: Vec<Id>,
}

/// Whether one way to capture works.
#[derive(Debug, Clone, Serialize)]
pub struct CaptureState {
    /// The way of capture.
    pub name: Backend,
    /// Whether this build of odyn-net has it.
    pub built_in: bool,
    /// Whether the kernel and our rights allow it.
    pub verdict: Verdict,
}

/// Judges the findings. A check without a finding counts as passed: a kernel's configuration says
/// nothing about rights.
pub fn diagnose(findings: &BTreeMap<Id, Finding>, purpose: Purpose) -> Diagnosis {
    let captures: Vec<CaptureState> = Backend::ALL
        .into_iter()
        .map(|backend| CaptureState {
            name: backend,
            built_in: backend.built_in(),
            verdict: worst(findings, backend.need()),
        })
        .collect();
    let candidates = candidates(purpose.capture);
    let capture = candidates.iter().copied().find(|candidate| {
        candidate.built_in() && worst(findings, candidate.need()) == Verdict::Present
    });
    let mut needs = vec![Need::App];
    match capture {
        Some(backend) => needs.push(backend.need()),
        // The checks that block the capture with the fewest missing things, or the preferred one of
        // several.
        None => needs.extend(
            candidates
                .iter()
                .map(|candidate| candidate.need())
                .min_by_key(|need| missing(findings, *need)),
        ),
    }
    let blocking_ids: Vec<Id> = Id::ALL
        .into_iter()
        .filter(|id| {
            purpose.link.requires().contains(id)
                || needs.iter().any(|need| id.entry().required_by(*need))
        })
        .filter(|id| !passes(findings, *id))
        .collect();
    Diagnosis {
        ready: capture.is_some() && blocking_ids.is_empty(),
        capture,
        captures,
        blocking: blocking_ids.iter().map(|id| id.name()).collect(),
        blocking_ids,
    }
}

fn missing(findings: &BTreeMap<Id, Finding>, need: Need) -> usize {
    Id::ALL
        .into_iter()
        .filter(|id| id.entry().required_by(need) && !passes(findings, *id))
        .count()
}

fn worst(findings: &BTreeMap<Id, Finding>, need: Need) -> Verdict {
    let verdicts = findings
        .iter()
        .filter(|(id, _)| id.entry().required_by(need))
        .map(|(_, finding)| finding.verdict);
    verdicts.max().unwrap_or(Verdict::Unknown)
}

fn passes(findings: &BTreeMap<Id, Finding>, id: Id) -> bool {
    findings
        .get(&id)
        .is_none_or(|finding| finding.verdict == Verdict::Present)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_present() -> BTreeMap<Id, Finding> {
        Id::ALL.map(|id| (id, Finding::present(""))).into()
    }

    fn auto() -> Purpose {
        Purpose {
            capture: Method::Auto,
            link: Link::Other,
        }
    }

    #[test]
    fn a_kernel_with_everything_is_ready_with_nftables() {
        let answer = diagnose(&all_present(), auto());
        assert!(answer.ready);
        assert_eq!(answer.capture, Some(Backend::Nftables));
        assert!(answer.blocking.is_empty());
    }

    #[test]
    fn one_required_thing_decides_and_an_optional_one_does_not() {
        for id in Id::ALL {
            let mut findings = all_present();
            findings.insert(id, Finding::missing(""));
            let answer = diagnose(&findings, auto());
            let entry = id.entry();
            let both = entry.required_by(Need::Nftables) && entry.required_by(Need::Tun);
            let required = both || entry.required_by(Need::App);
            assert_eq!(answer.ready, !required, "{}", id.name());
            let expected: Vec<&str> = required.then_some(id.name()).into_iter().collect();
            assert_eq!(answer.blocking, expected, "{}", id.name());
        }
    }

    #[test]
    fn what_is_unknown_is_not_taken_for_granted() {
        let mut findings = all_present();
        findings.insert(Id::NftCapture, Finding::unknown(""));
        let purpose = Purpose {
            capture: Method::Nftables,
            ..auto()
        };
        let answer = diagnose(&findings, purpose);
        assert!(!answer.ready);
        assert_eq!(answer.captures[0].verdict, Verdict::Unknown);
    }

    #[test]
    fn a_vsock_link_needs_its_own_transport() {
        let blocking = |absent, link| {
            let mut findings = all_present();
            findings.insert(absent, Finding::missing(""));
            diagnose(&findings, Purpose { link, ..auto() }).blocking
        };
        let none = [""; 0];
        assert_eq!(blocking(Id::VsockCid, Link::Other), none);
        assert_eq!(blocking(Id::VsockCid, Link::Vsock), ["vsock-cid"]);
        assert_eq!(blocking(Id::VsockCid, Link::VsockLoopback), none);
        assert_eq!(blocking(Id::VsockLoopback, Link::Vsock), none);
        assert_eq!(
            blocking(Id::VsockLoopback, Link::VsockLoopback),
            ["vsock-loopback"]
        );
        assert_eq!(blocking(Id::Vsock, Link::Vsock), ["vsock"]);
    }

    #[test]
    fn without_nf_tables_it_is_tun() {
        let mut findings = all_present();
        findings.insert(Id::NfTables, Finding::missing("not there"));
        let diagnosis = diagnose(&findings, auto());
        assert!(diagnosis.ready, "{diagnosis:?}");
        assert_eq!(diagnosis.capture, Some(Backend::Tun));
        let purpose = Purpose {
            capture: Method::Nftables,
            ..auto()
        };
        assert!(!diagnose(&findings, purpose).ready);
    }
}
