//! `policyctl check`.

use std::io::Write;

use anyhow::Result;
use odyn_policy::{Diagnostic, Loaded, Severity};

use crate::cli::{CheckArgs, Format};
use crate::image::Image;
use crate::output::{human, json, sarif};
use crate::source::Source;
use crate::{Outcome, image};

/// One file and what was found in it.
pub(crate) struct Checked {
    pub(crate) source: Source,
    pub(crate) loaded: Loaded,
    /// What is to be shown.
    pub(crate) findings: Vec<Diagnostic>,
}

pub(crate) fn run(args: &CheckArgs, out: &mut impl Write) -> Result<Outcome> {
    let image = args.root.as_deref().map(Image::open).transpose()?;
    let mut outcome = Outcome::Fine;
    let mut all = Vec::with_capacity(args.files.len());
    let mut unread = Vec::new();
    for path in &args.files {
        match Source::read(path) {
            Ok(source) => {
                let checked = Checked::new(source, args.verbose, image.as_ref());
                outcome = outcome.max(judge(&checked, args.deny_warnings));
                all.push(checked);
            }
            // The other files are still worth checking.
            Err(error) => {
                writeln!(std::io::stderr(), "policyctl: {error:#}")?;
                unread.push(format!("{error:#}"));
                outcome = Outcome::CouldNotRun;
            }
        }
    }
    match args.format {
        Format::Human => human::write(&all, out)?,
        Format::Json => json::write(&all, out)?,
        Format::Sarif => sarif::write(&all, &unread, out)?,
    }
    Ok(outcome)
}

impl Checked {
    fn new(source: Source, verbose: bool, image: Option<&Image>) -> Self {
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

fn judge(checked: &Checked, deny_warnings: bool) -> Outcome {
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
        Outcome::Findings
    } else {
        Outcome::Fine
    }
}
