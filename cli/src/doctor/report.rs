//! Builds the report and prints it, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use serde::Serialize;

use crate::doctor::catalogue::{Entry, Id};
use crate::doctor::check::{Finding, Need, Verdict};
use crate::doctor::diagnosis::{Backend, Diagnosis};

/// Version of the JSON format.
const FORMAT: u32 = 1;
/// Source of a report on the running kernel.
pub(super) const RUNNING: &str = "running";

/// A whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    format: u32,
    /// Name of the kernel.
    kernel: String,
    /// The source of the findings: [`RUNNING`] or the file.
    source: String,
    note: String,
    checks: Vec<Check>,
    #[serde(flatten)]
    diagnosis: Diagnosis,
    advice: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Check {
    id: Id,
    title: &'static str,
    verdict: Verdict,
    detail: String,
    required_by: &'static [Need],
    /// Whether what needs the check works without it, too.
    optional: bool,
    needed_for: &'static str,
    kernel_options: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// The sections of the text report, by what needs their checks.
const HEADINGS: [&str; 4] = [
    "Capture by nftables",
    "Capture by a TUN device",
    "The machine and the app",
    "Link, attestation, simulate",
];

/// The section of a check. A check that several things need is in the machine's.
fn heading(needed_by: &[Need]) -> &'static str {
    let [nftables, tun, machine, link] = HEADINGS;
    match needed_by {
        [Need::Nftables] => nftables,
        [Need::Tun] => tun,
        [Need::Vsock] | [Need::Kms] | [Need::Simulate] => link,
        _ => machine,
    }
}

impl Report {
    /// Makes a report.
    pub fn new(
        kernel: String,
        source: String,
        note: String,
        findings: &BTreeMap<Id, Finding>,
        diagnosis: Diagnosis,
    ) -> Self {
        let checks = Id::ALL
            .into_iter()
            .filter_map(|id| findings.get(&id).map(|finding| check(id, finding)))
            .collect();
        let advice = advice(&diagnosis, findings, source == RUNNING);
        Self {
            format: FORMAT,
            kernel,
            source,
            note,
            checks,
            diagnosis,
            advice,
        }
    }

    /// Whether `odyn-net run` would work.
    pub fn ready(&self) -> bool {
        self.diagnosis.ready
    }
}

fn check(id: Id, finding: &Finding) -> Check {
    let entry = id.entry();
    Check {
        id,
        title: entry.title,
        verdict: finding.verdict,
        detail: finding.detail.clone(),
        required_by: entry.needed_by,
        optional: entry.optional,
        needed_for: entry.needed_for,
        kernel_options: options(entry),
        fix: (finding.verdict != Verdict::Present).then(|| fix(entry, finding.verdict)),
    }
}

fn options(entry: &Entry) -> Vec<String> {
    let names = entry.options.iter().flat_map(|wanted| wanted.ask);
    let mut options: Vec<String> = Vec::new();
    for name in names {
        let option = format!("CONFIG_{name}");
        if !options.contains(&option) {
            options.push(option);
        }
    }
    options
}

fn fix(entry: &Entry, verdict: Verdict) -> String {
    if verdict == Verdict::Unknown {
        return "run this as root to check it".into();
    }
    let options = options(entry).join(", ");
    match (entry.hint.is_empty(), options.is_empty()) {
        (false, false) => format!("{}; kernel: {options}", entry.hint),
        (false, true) => entry.hint.into(),
        (true, false) => format!("kernel: {options}"),
        (true, true) => "see what is missing above".into(),
    }
}

fn advice(diagnosis: &Diagnosis, findings: &BTreeMap<Id, Finding>, running: bool) -> Vec<String> {
    if let (true, Some(capture)) = (diagnosis.ready, diagnosis.capture) {
        return vec![format!(
            "`odyn-net run` would capture by {}.",
            capture.name()
        )];
    }
    let mut advice = Vec::new();
    if let Some(capture) = diagnosis.capture {
        advice.push(format!(
            "Capture by {} would work, but not `odyn-net run`.",
            capture.name()
        ));
    } else {
        advice.push("No capture would work, so `odyn-net run` would not start the app.".into());
        let spare = diagnosis
            .captures
            .iter()
            .find(|capture| !capture.built_in && capture.verdict == Verdict::Present);
        if let Some(spare) = spare {
            advice.push(format!(
                "This kernel could capture by {}, which this version of odyn-net does not have.",
                spare.name.name()
            ));
        }
    }
    let (missing, unknown): (Vec<Id>, Vec<Id>) = diagnosis.blocking_ids.iter().partition(|id| {
        findings
            .get(id)
            .is_some_and(|f| f.verdict == Verdict::Missing)
    });
    let mut kernel: Vec<String> = Vec::new();
    for id in &missing {
        for option in options(id.entry()) {
            if !kernel.contains(&option) {
                kernel.push(option);
            }
        }
    }
    if !kernel.is_empty() {
        let how = if running {
            "Set in the kernel's configuration, or load the modules where it has them"
        } else {
            "Set in the kernel's configuration"
        };
        advice.push(format!("{how}: {}", kernel.join(" ")));
    }
    for id in missing {
        let hint = id.entry().hint;
        if !hint.is_empty() {
            advice.push(format!("{}: {hint}", id.name()));
        }
    }
    if could_simulate(findings) {
        advice.push("`enclaver simulate` would work now.".into());
    }
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().map(|id| id.name()).collect();
        advice.push(format!("Run this as root to check: {}", names.join(", ")));
    }
    advice
}

/// Whether `simulate` would work. It has every right over namespaces of its own, as the trial had.
fn could_simulate(findings: &BTreeMap<Id, Finding>) -> bool {
    [Id::Namespaces, Id::NftCapture, Id::Seccomp]
        .iter()
        .all(|id| {
            findings
                .get(id)
                .is_some_and(|f| f.verdict == Verdict::Present)
        })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}", self.kernel, self.source)?;
        writeln!(f, "{}", self.note)?;
        for part in HEADINGS {
            let checks: Vec<&Check> = self
                .checks
                .iter()
                .filter(|check| heading(check.required_by) == part)
                .collect();
            if checks.is_empty() {
                continue;
            }
            writeln!(f, "\n{part}")?;
            for check in checks {
                write!(f, "{check}")?;
            }
        }
        writeln!(f)?;
        for capture in &self.diagnosis.captures {
            let state = match (capture.built_in, capture.verdict) {
                (true, verdict) => verdict.word(),
                (false, Verdict::Present) => "possible, but not in this version of odyn-net",
                (false, _) => "not in this version of odyn-net",
            };
            writeln!(f, "capture {}: {state}", capture.name.name())?;
        }
        let chosen = self.diagnosis.capture.map_or("none", Backend::name);
        writeln!(f, "capture that would be used: {chosen}")?;
        if !self.diagnosis.blocking.is_empty() {
            writeln!(f, "in the way: {}", self.diagnosis.blocking.join(", "))?;
        }
        for line in &self.advice {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.verdict, self.optional) {
            (Verdict::Missing, true) => "absent",
            (verdict, _) => verdict.word(),
        };
        writeln!(
            f,
            "  {verdict:<8} {} ({}): {}",
            self.title,
            self.id.name(),
            self.needed_for
        )?;
        let mut more = String::new();
        if !self.detail.is_empty() {
            let _ = writeln!(more, "           {}", self.detail);
        }
        if let Some(fix) = &self.fix {
            let _ = writeln!(more, "           to do: {fix}");
        }
        f.write_str(&more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::diagnosis::{Link, Purpose, diagnose};
    use odyn_net::capture::Method;

    fn report(findings: &BTreeMap<Id, Finding>) -> Report {
        let purpose = Purpose {
            capture: Method::Auto,
            link: Link::Other,
        };
        let diagnosis = diagnose(findings, purpose);
        Report::new(
            "Linux 1".into(),
            "running".into(),
            "note".into(),
            findings,
            diagnosis,
        )
    }

    #[test]
    fn every_check_is_printed_once_under_a_heading() {
        let findings = Id::ALL.map(|id| (id, Finding::present(""))).into();
        let text = report(&findings).to_string();
        for id in Id::ALL {
            let line = format!(" ({}): ", id.name());
            assert_eq!(text.matches(&line).count(), 1, "{line} in\n{text}");
        }
        for heading in HEADINGS {
            assert!(text.contains(heading), "{heading} in\n{text}");
        }
    }

    #[test]
    fn what_is_missing_comes_with_what_to_do() {
        let mut findings: BTreeMap<Id, Finding> =
            Id::ALL.map(|id| (id, Finding::present(""))).into();
        findings.insert(Id::NftFib, Finding::missing("the kernel refused it"));
        findings.insert(Id::Tun, Finding::missing("no driver"));
        let report = report(&findings);
        let text = report.to_string();
        for part in [
            "missing  fib daddr type (nft-fib): distinguishing local destinations from others\n",
            "the kernel refused it\n",
            "to do: kernel: CONFIG_NFT_FIB_IPV4, CONFIG_NFT_FIB_IPV6, CONFIG_NFT_FIB_INET\n",
            "capture nftables: missing\n",
            "capture that would be used: none\n",
            "in the way: nft-fib\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["ready"], false);
        assert_eq!(json["capture"], serde_json::Value::Null);
        assert_eq!(json["blocking"][0], "nft-fib");
        assert_eq!(json["checks"][3]["required_by"][0], "capture nftables");
    }
}
