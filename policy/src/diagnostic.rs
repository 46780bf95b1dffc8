//! Findings about a policy file: errors, warnings and notes, each with a place in the text.

use std::fmt;
use std::sync::Arc;

pub use odyn_yaml::Span;

use crate::codes;
use crate::settings::FilePath;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A fact that needs no action; shown on request.
    Note,
    /// The policy loads, but probably does not do what its author meant.
    Warning,
    /// The policy is refused.
    Error,
}

impl Severity {
    /// The severity as every output format has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A second place that explains a diagnostic, such as the rule that shadows this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// The explanation of the place.
    pub message: String,
    /// The place, in the same file.
    pub span: Span,
}

/// One finding about a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The severity.
    pub severity: Severity,
    /// A stable kebab-case identifier; [`crate::codes`] lists them all.
    pub code: &'static str,
    /// The fault, in one sentence without a full stop.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
    /// The file name as it was given to [`crate::load()`].
    pub file: Arc<str>,
    /// The place of the fault.
    pub span: Span,
    /// Other places that explain the fault.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// A finding about a file that the policy names.
    ///
    /// Callers make it after they have read the file: this crate reads none.
    #[must_use]
    pub fn tls_file(file_name: &str, place: &FilePath, message: String, help: String) -> Self {
        Self {
            severity: Severity::Error,
            code: codes::TLS_FILE,
            message,
            help: Some(help),
            file: Arc::from(file_name),
            span: place.span,
            related: Vec::new(),
        }
    }

    /// A note that the files named from this place on were not checked.
    #[must_use]
    pub fn tls_files_unchecked(file_name: &str, place: &FilePath, help: &str) -> Self {
        Self {
            severity: Severity::Note,
            code: codes::TLS_FILES_UNCHECKED,
            message: "the files of `tls` were not checked".to_owned(),
            help: Some(help.to_owned()),
            file: Arc::from(file_name),
            span: place.span,
            related: Vec::new(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}[{}]: {}",
            self.file, self.span.line, self.span.column, self.severity, self.code, self.message
        )?;
        match &self.help {
            Some(help) => write!(f, " (help: {help})"),
            None => Ok(()),
        }
    }
}

/// Most findings that are kept for one file. A file with more has one fault many times.
pub(crate) const MAX_DIAGNOSTICS: usize = 10_000;

/// Collects the findings about one file.
#[derive(Debug)]
pub(crate) struct DiagnosticSink {
    pub(crate) file: Arc<str>,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
}

impl DiagnosticSink {
    pub(crate) fn new(file_name: &str) -> Self {
        Self {
            file: Arc::from(file_name),
            diagnostics: Vec::new(),
            errors: 0,
        }
    }

    pub(crate) fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> Draft<'_> {
        self.errors += 1;
        self.push(Severity::Error, code, span, message.into())
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> Draft<'_> {
        self.push(Severity::Warning, code, span, message.into())
    }

    pub(crate) fn note(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
    ) -> Draft<'_> {
        self.push(Severity::Note, code, span, message.into())
    }

    fn push(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        message: String,
    ) -> Draft<'_> {
        // An error beyond the limit is missing in the list but counted, so that the policy is
        // refused.
        if self.diagnostics.len() >= MAX_DIAGNOSTICS {
            return Draft(None);
        }
        self.diagnostics.push(Diagnostic {
            severity,
            code,
            message,
            help: None,
            file: Arc::clone(&self.file),
            span,
            related: Vec::new(),
        });
        Draft(self.diagnostics.last_mut())
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The findings in the order of the text.
    pub(crate) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|d| d.span);
        self.diagnostics
    }
}

/// A finding that was just added and can be extended.
pub(crate) struct Draft<'a>(Option<&'a mut Diagnostic>);

impl Draft<'_> {
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        self.help_opt(Some(help.into()))
    }

    pub(crate) fn help_opt(mut self, help: Option<String>) -> Self {
        if let (Some(diagnostic), Some(help)) = (&mut self.0, help) {
            diagnostic.help = Some(help);
        }
        self
    }

    pub(crate) fn related(mut self, span: Span, message: impl Into<String>) -> Self {
        if let Some(diagnostic) = &mut self.0 {
            diagnostic.related.push(Related {
                message: message.into(),
                span,
            });
        }
        self
    }
}
