//! The loader: policy text in, compiled policy out.

mod destination;
mod egress;
mod fields;
pub(crate) mod keys;
mod kms;
pub(crate) mod services;
mod tls;

use crate::diagnostic::{Diagnostic, DiagnosticSink, Severity, Span};
use crate::policy::Policy;
use crate::rule::{Effect, Rule};
use crate::settings::PolicySettings;
use crate::yaml::YamlNode;
use crate::{codes, yaml};
use fields::Fields;
use services::ListeningPort;

/// A policy file that was read.
#[derive(Debug)]
pub struct LoadedPolicy {
    /// The policy; `None` exactly when a diagnostic is an error.
    pub policy: Option<Policy>,
    /// The findings, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl LoadedPolicy {
    /// Whether the file has an error, so that there is no policy.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.policy.is_none()
    }

    /// The findings that are errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
    }
}

/// Reads and compiles a policy. `file_name` labels findings and rules.
#[must_use]
pub fn load(file_name: &str, text: &str) -> LoadedPolicy {
    let mut sink = DiagnosticSink::new(file_name);
    let policy = read(text, &mut sink).map(|m| Policy::compile(file_name, m.settings, m.rules));
    finish(policy, sink)
}

/// As [`load()`], for bytes that may not be text.
#[must_use]
pub fn load_bytes(file_name: &str, bytes: &[u8]) -> LoadedPolicy {
    match text_of(file_name, bytes) {
        Ok(text) => load(file_name, text),
        Err(loaded) => *loaded,
    }
}

pub(crate) fn text_of<'a>(file_name: &str, bytes: &'a [u8]) -> Result<&'a str, Box<LoadedPolicy>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let before = String::from_utf8_lossy(before);
        let line = before.split('\n').count();
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        let span = Span {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            len: 1,
        };
        let mut sink = DiagnosticSink::new(file_name);
        let message = format!("the file is not UTF-8 text (byte {})", error.valid_up_to());
        sink.error(codes::NOT_UTF8, span, message)
            .help("save the file as UTF-8");
        Box::new(finish(None, sink))
    })
}

pub(crate) fn finish(policy: Option<Policy>, sink: DiagnosticSink) -> LoadedPolicy {
    LoadedPolicy {
        policy: policy.filter(|_| !sink.has_errors()),
        diagnostics: sink.into_diagnostics(),
    }
}

/// The content of a file without errors.
pub(crate) struct Manifest {
    pub(crate) settings: PolicySettings,
    pub(crate) rules: Vec<Rule>,
    /// The ports that the file opens, for the lint of collisions.
    pub(crate) listeners: Vec<ListeningPort>,
}

pub(crate) fn read(text: &str, sink: &mut DiagnosticSink) -> Option<Manifest> {
    let root = yaml::parse(text, sink)?;
    let manifest = manifest(&root, sink)?;
    if sink.has_errors() {
        return None;
    }
    let allows = |rule: &Rule| rule.effect == Effect::Allow;
    if !manifest.rules.iter().any(allows) {
        sink.note(
            codes::ALLOWS_NOTHING,
            Span::START,
            "the policy has no allow rule, so no flow may leave the guest",
        );
    }
    Some(manifest)
}

fn manifest(root: &YamlNode, sink: &mut DiagnosticSink) -> Option<Manifest> {
    let fields = Fields::open(root, "the policy", "`version: v1` and further keys", sink)?;
    fields.check_keys(&keys::POLICY, sink);
    version(&fields, root, sink);
    let mut settings = PolicySettings {
        name: fields.string("name", "payments", sink),
        ..PolicySettings::default()
    };
    let mut rules = Vec::new();
    if let Some(node) = fields.get("egress") {
        egress::read(node, &mut settings, &mut rules, sink);
    }
    let listeners = services::read(&fields, &mut settings, sink);
    Some(Manifest {
        settings,
        rules,
        listeners,
    })
}

fn version(fields: &Fields<'_>, root: &YamlNode, sink: &mut DiagnosticSink) {
    match fields.string("version", "v1", sink) {
        Some(version) if version == "v1" => {}
        Some(version) => {
            let message = format!("version {version:?} is not known");
            sink.error(codes::BAD_VERSION, fields.span("version"), message)
                .help("the only version is `version: v1`");
        }
        None if fields.get("version").is_none() => {
            let span = Span {
                len: 0,
                ..root.span
            };
            sink.error(
                codes::MISSING_KEY,
                span,
                "the policy does not say its version",
            )
            .help("start it with `version: v1`");
        }
        // A wrong type has been reported.
        None => {}
    }
}
