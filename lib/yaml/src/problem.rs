//! What is wrong with a text, and where.

use std::fmt;

/// A place in a text, on one line.
///
/// A value that goes on over several lines is given by what stands on its first one.
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
    /// The start of the file: where a message about the file as a whole points.
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
    /// Not YAML, or not of the kind that is read here.
    Syntax,
    /// Longer, deeper or more repetitive than a file of ours can be.
    TooLarge,
    /// A character that makes the text look like something else.
    HiddenCharacter,
    /// There is no document.
    Empty,
}

/// Why a text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlProblem {
    /// Its kind.
    pub kind: ProblemKind,
    /// Where.
    pub span: Span,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// How to put it right.
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
