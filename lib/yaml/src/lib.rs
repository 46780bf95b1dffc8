//! YAML text to a tree in which every key and value has its place in the text.
//!
//! The parser is `saphyr-parser`: pure Rust without `unsafe`, events with spans. `serde_yaml` and
//! its forks give places for their own errors only, not for values, so that half of the findings of
//! `policyctl check` could not point anywhere. Tests of the policy crate compare its trees with
//! those of this parser.
//!
//! A text may be hostile. Its length, its depth and the expansion of aliases are bounded, and
//! nothing here recurses over events.

#![forbid(unsafe_code)]

mod characters;
mod compose;
mod problem;
mod scalar;
mod suggest;

use saphyr_parser::{Marker, Parser, Span as ParserSpan, StrInput};

use compose::Composer;

pub use problem::{ProblemKind, Span, YamlProblem};
pub use scalar::{Scalar, ScalarKind};
pub use suggest::nearest;

/// Longest text, in bytes: room for 100 000 rules with comments.
pub const MAX_TEXT: usize = 16 << 20;

/// A value and its place.
#[derive(Clone, Debug)]
pub struct YamlNode {
    /// The place in the text.
    pub span: Span,
    /// The value.
    pub value: YamlValue,
}

/// The kinds of values.
#[derive(Clone, Debug)]
pub enum YamlValue {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<YamlNode>),
    /// Keys with values, as written: a key may stand twice.
    Mapping(Vec<(YamlKey, YamlNode)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub struct YamlKey {
    /// The text, without quotes.
    pub text: String,
    /// The place in the text.
    pub span: Span,
}

impl YamlNode {
    /// A description for error messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.value {
            YamlValue::Sequence(_) => "a list".to_owned(),
            YamlValue::Mapping(_) => "a mapping".to_owned(),
            YamlValue::Scalar(scalar) => match scalar.kind() {
                ScalarKind::Null => "nothing".to_owned(),
                ScalarKind::Bool(_) => format!("the boolean {}", scalar.text),
                ScalarKind::Integer => format!("the integer {}", short(&scalar.text)),
                ScalarKind::Float => format!("the number {}", short(&scalar.text)),
                ScalarKind::String => format!("the string {:?}", short(&scalar.text)),
            },
        }
    }

    /// Whether the value is empty, `~` or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, YamlValue::Scalar(s) if s.kind() == ScalarKind::Null)
    }

    /// The number of nodes in this tree.
    fn size(&self) -> usize {
        // Depth is bounded by MAX_DEPTH, so recursion is too.
        1 + match &self.value {
            YamlValue::Scalar(_) => 0,
            YamlValue::Sequence(items) => items.iter().map(Self::size).sum(),
            YamlValue::Mapping(entries) => entries.iter().map(|(_, node)| 1 + node.size()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            YamlValue::Scalar(_) => 0,
            YamlValue::Sequence(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            YamlValue::Mapping(entries) => {
                entries.iter().map(|(_, n)| n.depth()).max().unwrap_or(0)
            }
        }
    }
}

/// A text for a message, shortened if it is long.
#[must_use]
pub fn short(text: &str) -> String {
    const MAX: usize = 80;
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Whether a file may have anchors and aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchors {
    /// Aliases are followed, within limits.
    Followed,
    /// Anchors and aliases are errors.
    Refused,
}

/// Reads one document.
///
/// # Errors
/// The problems, in the order of the text. [`ProblemKind::Empty`] if there is no document, or an
/// empty one.
pub fn parse(text: &str, anchors: Anchors) -> Result<YamlNode, Vec<YamlProblem>> {
    if text.len() > MAX_TEXT {
        let message = format!("the file is larger than {} MiB", MAX_TEXT >> 20);
        return Err(vec![YamlProblem::too_large(Span::START, message)]);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    characters::check(text)?;
    let root = compose(text, anchors).map_err(|problem| vec![problem])?;
    match root {
        Some(root) if !root.is_null() => Ok(root),
        _ => Err(vec![YamlProblem::new(
            ProblemKind::Empty,
            Span::START,
            "the file has no content",
        )]),
    }
}

fn compose(text: &str, anchors: Anchors) -> Result<Option<YamlNode>, YamlProblem> {
    let mut composer = Composer::new(anchors);
    let mut parser = Parser::<StrInput<'_>>::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => composer.take(event, place(span))?,
            Err(error) => {
                let mark = error.marker();
                let span = Span {
                    line: number(mark.line()),
                    column: number(mark.col() + 1),
                    len: 1,
                };
                let message = format!("not valid YAML: {}", error.info());
                let mut problem = YamlProblem::syntax(span, message);
                problem.help = syntax_help(text, error.marker());
                return Err(problem);
            }
        }
    }
    Ok(composer.finish())
}

/// The most common mistake at the text where the parser stopped.
fn syntax_help(text: &str, mark: &Marker) -> Option<String> {
    let line = text.lines().nth(mark.line().checked_sub(1)?)?;
    if line
        .trim_start_matches([' ', '-', '[', ','])
        .starts_with('*')
        || line.contains("[*")
    {
        return Some("names that start with a star need quotes, as in \"*.example.com\"".into());
    }
    if line.contains('\t') {
        return Some("indent with spaces: YAML does not take tabs".into());
    }
    None
}

fn place(span: ParserSpan) -> Span {
    // Only the first line is underlined; the renderer cuts at its end.
    Span {
        line: number(span.start.line()),
        column: number(span.start.col() + 1),
        len: if span.start.line() == span.end.line() {
            number(span.end.col().saturating_sub(span.start.col()))
        } else {
            number(span.end.index().saturating_sub(span.start.index()))
        },
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
