//! Findings as a JSON array, one object each. New versions add fields, and change or remove none.

use std::io;
use std::io::Write;

use odyn_policy::{Diagnostic, Span};
use serde::Serialize;

use crate::check::Checked;

#[derive(Serialize)]
struct JsonFinding<'a> {
    file: &'a str,
    /// `error`, `warning` or `note`.
    severity: &'a str,
    code: &'a str,
    message: &'a str,
    help: Option<&'a str>,
    #[serde(flatten)]
    place: JsonPlace,
    related: Vec<JsonRelated<'a>>,
}

/// Line and column count from 1, column and length in characters.
#[derive(Serialize)]
struct JsonPlace {
    line: u32,
    column: u32,
    length: u32,
}

#[derive(Serialize)]
struct JsonRelated<'a> {
    message: &'a str,
    #[serde(flatten)]
    place: JsonPlace,
}

pub(crate) fn write(all: &[Checked], out: &mut impl Write) -> io::Result<()> {
    let findings: Vec<JsonFinding<'_>> = all
        .iter()
        .flat_map(|checked| &checked.findings)
        .map(finding)
        .collect();
    serde_json::to_writer_pretty(&mut *out, &findings)?;
    writeln!(out)
}

fn finding(diagnostic: &Diagnostic) -> JsonFinding<'_> {
    JsonFinding {
        file: &diagnostic.file,
        severity: diagnostic.severity.as_str(),
        code: diagnostic.code,
        message: &diagnostic.message,
        help: diagnostic.help.as_deref(),
        place: place(diagnostic.span),
        related: diagnostic
            .related
            .iter()
            .map(|related| JsonRelated {
                message: &related.message,
                place: place(related.span),
            })
            .collect(),
    }
}

fn place(span: Span) -> JsonPlace {
    JsonPlace {
        line: span.line,
        column: span.column,
        length: span.len,
    }
}
