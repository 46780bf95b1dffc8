//! Problems of a text, with their places.

use std::fmt;

/// A place in a text, on one line.
///
/// For a value of several lines, it is the part on the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters (not bytes), counted from 1.
    pub column: u32,
    /// Length in characters; 0 for a place between two characters.
    pub len: u32,
}

impl Span {
    /// The start of the file, for messages about the file as a whole.
    pub const START: Self = Self {
        line: 1,
        column: 1,
        len: 0,
    };
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The text is not YAML, or uses a feature that is not supported.
    Syntax,
    /// The text exceeds a limit.
    TooLarge,
    /// A character that makes the text look like something else.
    HiddenCharacter,
    /// There is no document.
    Empty,
}

/// Why a text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlProblem {
    /// The kind of the problem.
    pub kind: ProblemKind,
    /// The place of the problem.
    pub span: Span,
    /// The problem, in one sentence without a full stop.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
}

impl YamlProblem {
    pub(crate) fn new(kind: ProblemKind, span: Span, message: impl Into<String>) -> Self {
        Self {
            kind,
            span,
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn syntax(span: Span, message: impl Into<String>) -> Self {
        Self::new(ProblemKind::Syntax, span, message)
    }

    pub(crate) fn too_large(span: Span, message: impl Into<String>) -> Self {
        Self::new(ProblemKind::TooLarge, span, message)
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
