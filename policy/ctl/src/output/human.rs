//! Findings for people.

use std::io;
use std::io::Write;

use odyn_policy::{Mode, Policy, Renderer, Severity};

use crate::check::Checked;

pub(crate) fn write(all: &[Checked], out: &mut impl Write) -> io::Result<()> {
    for checked in all {
        let text = checked.source.text();
        let renderer = Renderer::new(&text);
        for finding in &checked.findings {
            writeln!(out, "{}", renderer.render(finding))?;
        }
        writeln!(out, "{}: {}", checked.source.name, summary(checked))?;
    }
    Ok(())
}

/// The number of findings such as `2 errors, 1 warning`, or a summary of a policy without errors.
fn summary(checked: &Checked) -> String {
    let count = |severity| {
        let found = &checked.loaded.diagnostics;
        found.iter().filter(|d| d.severity == severity).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(plural(errors, "error"));
    }
    if warnings > 0 {
        parts.push(plural(warnings, "warning"));
    }
    if parts.is_empty() {
        parts.push("ok".to_owned());
    }
    if let Some(policy) = &checked.loaded.policy {
        parts.push(describe(policy));
    }
    parts.join(", ")
}

fn describe(policy: &Policy) -> String {
    let (allow, deny) = policy.rule_counts();
    if policy.settings().mode == Mode::Report {
        return format!("mode report with {}", plural(allow + deny, "rule"));
    }
    if allow == 0 {
        return "allows no outbound flow".to_owned();
    }
    format!(
        "{} and {}",
        plural(allow, "allow rule"),
        plural(deny, "deny rule")
    )
}

fn plural(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}
