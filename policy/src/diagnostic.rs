//! What is said about a policy file: errors, warnings and notes, each with a place in the text.

use std::fmt;
use std::sync::Arc;

pub use odyn_yaml::Span;

use crate::codes;
use crate::settings::FilePath;

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing, nothing to do: shown only on request.
    Note,
    /// The policy works, and probably not as meant.
    Warning,
    /// The policy is not used at all.
    Error,
}

impl Severity {
    /// The word used in every output format.
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
    /// What is to be seen there.
    pub message: String,
    /// The place, in the same file.
    pub span: Span,
}

/// One finding about a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// A stable kebab-case identifier; [`crate::codes`] lists them all.
    pub code: &'static str,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// How to put it right.
    pub help: Option<String>,
    /// The file name as it was given to [`crate::load`].
    pub file: Arc<str>,
    /// Where it is.
    pub span: Span,
    /// Other places that matter.
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// A file that the policy names was looked at, and is not what it should be: what only those
    /// can find who read files, which this crate does not.
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

    /// The files that the policy names from this place on were not looked at.
    #[must_use]
    pub fn tls_files_unchecked(file_name: &str, place: &FilePath, help: &str) -> Self {
        Self {
            severity: Severity::Note,
            code: codes::TLS_FILES_UNCHECKED,
            message: "the files of `tls` were not looked at".to_owned(),
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

/// Most diagnostics that are kept of one file: a file with more is broken in one way many times.
pub(crate) const MAX_DIAGNOSTICS: usize = 10_000;

/// Collects the diagnostics of one file.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) file: Arc<str>,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
}

impl Sink {
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
        // An error beyond the limit is dropped from the list only: it stays counted, so the
        // policy is refused all the same.
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

    /// The diagnostics in the order of the text.
    pub(crate) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|d| d.span);
        self.diagnostics
    }
}

/// A diagnostic that was just added and can still be given more words.
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
