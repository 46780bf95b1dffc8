//! `policyctl check`.

use std::io::Write;

use anyhow::Result;
use odyn_policy::{Diagnostic, LoadedPolicy, Severity};

use crate::cli::{CheckArgs, OutputFormat};
use crate::image::Image;
use crate::output::{human, json, sarif};
use crate::source::PolicySource;
use crate::{CommandOutcome, image};

/// A file with its findings.
pub(crate) struct Checked {
    pub(crate) source: PolicySource,
    pub(crate) loaded: LoadedPolicy,
    /// The findings to show.
    pub(crate) findings: Vec<Diagnostic>,
}

pub(crate) fn run(args: &CheckArgs, out: &mut impl Write) -> Result<CommandOutcome> {
    let image = args.root.as_deref().map(Image::open).transpose()?;
    let mut outcome = CommandOutcome::Fine;
    let mut all = Vec::with_capacity(args.files.len());
    let mut unread = Vec::new();
    for path in &args.files {
        match PolicySource::read(path) {
            Ok(source) => {
                let checked = Checked::new(source, args.verbose, image.as_ref());
                outcome = outcome.max(judge(&checked, args.deny_warnings));
                all.push(checked);
            }
            // The other files are checked all the same.
            Err(error) => {
                writeln!(std::io::stderr(), "policyctl: {error:#}")?;
                unread.push(format!("{error:#}"));
                outcome = CommandOutcome::CouldNotRun;
            }
        }
    }
    match args.format {
        OutputFormat::Human => human::write(&all, out)?,
        OutputFormat::Json => json::write(&all, out)?,
        OutputFormat::Sarif => sarif::write(&all, &unread, out)?,
    }
    Ok(outcome)
}

impl Checked {
    fn new(source: PolicySource, verbose: bool, image: Option<&Image>) -> Self {
        let mut loaded = odyn_policy::check_bytes(&source.name, &source.bytes);
        if let Some(policy) = &loaded.policy {
            let found = image::check(policy, &source.name, image);
            loaded.diagnostics.extend(found);
            loaded.diagnostics.sort_by_key(|d| d.span);
        }
        let least = if verbose {
            Severity::Note
        } else {
            Severity::Warning
        };
        let findings = loaded
            .diagnostics
            .iter()
            .filter(|d| d.severity >= least)
            .cloned()
            .collect();
        Self {
            source,
            loaded,
            findings,
        }
    }
}

fn judge(checked: &Checked, deny_warnings: bool) -> CommandOutcome {
    let least = if deny_warnings {
        Severity::Warning
    } else {
        Severity::Error
    };
    let found = checked
        .loaded
        .diagnostics
        .iter()
        .any(|d| d.severity >= least);
    if found || checked.loaded.has_errors() {
        CommandOutcome::Findings
    } else {
        CommandOutcome::Fine
    }
}
