//! Findings as SARIF 2.1.0 (OASIS), for code scanning services.

use std::io;
use std::io::Write;
use std::path::Path;

use odyn_policy::{Diagnostic, Severity, Span, codes};
use serde_json::{Value, json};

use crate::check::Checked;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// `unread` are the files that could not be read, as messages.
pub(crate) fn write(all: &[Checked], unread: &[String], out: &mut impl Write) -> io::Result<()> {
    let rules: Vec<Value> = codes::ALL
        .iter()
        .map(|code| {
            json!({
                "id": code.id,
                "shortDescription": { "text": code.summary },
                "defaultConfiguration": { "level": level(code.severity) },
            })
        })
        .collect();
    let results: Vec<Value> = all
        .iter()
        .flat_map(|checked| &checked.findings)
        .map(result)
        .collect();
    let notifications: Vec<Value> = unread
        .iter()
        .map(|text| json!({ "level": "error", "message": message(text) }))
        .collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "policyctl",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            // Spans count characters, not UTF-16 units.
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": unread.is_empty(),
                "toolExecutionNotifications": notifications,
            }],
            "results": results,
        }],
    });
    serde_json::to_writer_pretty(&mut *out, &log)?;
    writeln!(out)
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// A message object. Literal braces are doubled, since braces mark placeholders (SARIF 3.11.5).
fn message(text: &str) -> Value {
    json!({ "text": text.replace('{', "{{").replace('}', "}}") })
}

fn result(diagnostic: &Diagnostic) -> Value {
    let text = match &diagnostic.help {
        Some(help) => format!("{}. Help: {help}", diagnostic.message),
        None => diagnostic.message.clone(),
    };
    let related: Vec<Value> = (0..)
        .zip(&diagnostic.related)
        .map(|(id, related): (u32, _)| {
            let mut location = location(&diagnostic.file, related.span);
            if let Some(fields) = location.as_object_mut() {
                fields.insert("id".to_owned(), json!(id));
                fields.insert("message".to_owned(), message(&related.message));
            }
            location
        })
        .collect();
    let mut result = json!({
        "ruleId": diagnostic.code,
        "level": level(diagnostic.severity),
        "message": message(&text),
        "locations": [location(&diagnostic.file, diagnostic.span)],
        "relatedLocations": related,
    });
    if let Some(index) = codes::ALL
        .iter()
        .position(|code| code.id == diagnostic.code)
        && let Some(fields) = result.as_object_mut()
    {
        fields.insert("ruleIndex".to_owned(), json!(index));
    }
    result
}

fn location(file: &str, span: Span) -> Value {
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(file) },
            "region": {
                "startLine": span.line,
                "startColumn": span.column,
                "endLine": span.line,
                "endColumn": span.column.saturating_add(span.len),
            },
        },
    })
}

/// A path as a URI reference.
///
/// Relative paths stay relative, so that a scanner can match them with the files of a repository.
fn uri(file: &str) -> String {
    let mut uri = String::with_capacity(file.len());
    if Path::new(file).is_absolute() {
        uri.push_str("file://");
    }
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::{message, uri};

    #[test]
    fn braces_are_no_placeholders() {
        assert_eq!(message("{ to: a }")["text"], "{{ to: a }}");
    }

    #[test]
    fn paths_become_uri_references() {
        for (path, wanted) in [
            ("policies/a.yaml", "policies/a.yaml"),
            ("/etc/odyn/a b.yaml", "file:///etc/odyn/a%20b.yaml"),
            ("a:b.yaml", "a%3Ab.yaml"),
            ("ü.yaml", "%C3%BC.yaml"),
            ("<stdin>", "%3Cstdin%3E"),
        ] {
            assert_eq!(uri(path), wanted);
        }
    }
}
