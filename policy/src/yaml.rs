//! YAML text to a tree in which everything knows its place. The only module that knows the parser.
//!
//! The parser is `saphyr-parser`: pure Rust without `unsafe`, events with spans. `serde_yaml` and
//! its forks give a place only with an error of their own and none with a value, so that half of
//! what `policyctl check` says could not point anywhere; it serves as the second opinion in this
//! crate's tests, which compare the two parsers' trees.
//!
//! Policy text may be hostile. Its length, its depth and what aliases expand to are bounded, and
//! nothing here recurses over events.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as ParserSpan, StrInput};

use crate::codes;
use crate::diagnostic::{Sink, Span};

/// Longest policy text, in bytes: room for 100 000 rules with comments.
pub(crate) const MAX_TEXT: usize = 16 << 20;
/// Deepest nesting. The format itself needs 6.
const MAX_DEPTH: usize = 64;
/// Most values and keys.
const MAX_NODES: usize = 1_000_000;
/// Most nodes that aliases may add.
const MAX_ALIAS_NODES: usize = 10_000;
/// Most nodes in anchored values, counted once for each anchor around them.
const MAX_ANCHORED_NODES: usize = 100_000;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

/// A scalar as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written with quotes, as a block, or tagged `!!str`: a string whatever it looks like.
    pub(crate) is_string: bool,
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// What a plain scalar is under the YAML 1.2 core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Integer,
    Float,
    String,
}

impl Scalar {
    pub(crate) fn kind(&self) -> Kind {
        if self.is_string {
            return Kind::String;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            text if is_integer(text) => Kind::Integer,
            text if is_float(text) => Kind::Float,
            _ => Kind::String,
        }
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = digits.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = digits.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_float(text: &str) -> bool {
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(number, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    };
    let exponent_fits = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['-', '+']).unwrap_or(e);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    exponent_fits
        && !(whole.is_empty() && fraction.is_empty())
        && whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit())
}

impl Node {
    /// What it is, in the words of an error message.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
            Value::Scalar(scalar) => match scalar.kind() {
                Kind::Null => "nothing".to_owned(),
                Kind::Bool(_) => format!("the boolean {}", scalar.text),
                Kind::Integer => format!("the integer {}", short(&scalar.text)),
                Kind::Float => format!("the number {}", short(&scalar.text)),
                Kind::String => format!("the string {:?}", short(&scalar.text)),
            },
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.kind() == Kind::Null)
    }

    /// Nodes in this tree.
    fn size(&self) -> usize {
        // Depth is bounded by MAX_DEPTH, so recursion is too.
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Self::size).sum(),
            Value::Mapping(entries) => entries.iter().map(|(_, node)| 1 + node.size()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Mapping(entries) => entries.iter().map(|(_, n)| n.depth()).max().unwrap_or(0),
        }
    }
}

/// A text that is shown inside a message, cut when it is long.
pub(crate) fn short(text: &str) -> String {
    const MAX: usize = 80;
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Reads one document. `None` when there is none that can be used; why is in the sink.
pub(crate) fn parse(text: &str, sink: &mut Sink) -> Option<Node> {
    if text.len() > MAX_TEXT {
        sink.error(
            codes::TOO_LARGE,
            Span::START,
            format!("the file is larger than {} MiB", MAX_TEXT >> 20),
        );
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !check_characters(text, sink) {
        return None;
    }
    let mut composer = Composer {
        sink,
        open: Vec::new(),
        anchors: Vec::new(),
        nodes: 0,
        alias_nodes: 0,
        anchored_nodes: 0,
        documents: 0,
        root: None,
    };
    let mut parser = Parser::<StrInput<'_>>::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let result = match event {
            Ok((event, span)) => composer.take(event, place(span)),
            Err(error) => {
                let mark = error.marker();
                let span = Span {
                    line: number(mark.line()),
                    column: number(mark.col() + 1),
                    len: 1,
                };
                let message = format!("not valid YAML: {}", error.info());
                composer
                    .sink
                    .error(codes::YAML, span, message)
                    .help_opt(syntax_help(text, error.marker()));
                Err(Stop)
            }
        };
        if let Err(Stop) = result {
            return None;
        }
    }
    let root = composer.root.take();
    match root {
        Some(root) if !root.is_null() => Some(root),
        _ => {
            sink.error(codes::EMPTY, Span::START, "the file has no content")
                .help("a policy starts with `version: v1`");
            None
        }
    }
}

/// What people most often get wrong, judged by the text at which the parser gave up.
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

/// YAML allows hardly any control characters, and the parser takes U+0000 for the end of the
/// text: everything after it, deny rules too, would silently not be there.
fn check_characters(text: &str, sink: &mut Sink) -> bool {
    let bad = |c: char| {
        matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f'..='\u{84}'
            | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
    };
    // Characters that make a text look different from what it is (CVE-2021-42574).
    let hidden = |c: char| {
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
            | '\u{feff}')
    };
    if !text.contains(|c| bad(c) || hidden(c)) {
        return true;
    }
    let mut fine = true;
    for (line, content) in (1..).zip(text.split('\n')) {
        for (column, c) in (1..).zip(content.chars()) {
            let span = Span {
                line,
                column,
                len: 1,
            };
            if bad(c) {
                sink.error(
                    codes::YAML,
                    span,
                    format!(
                        "the control character U+{:04X} is not allowed",
                        u32::from(c)
                    ),
                );
                return false;
            }
            if hidden(c) {
                sink.error(
                    codes::HIDDEN_CHARACTER,
                    span,
                    format!(
                        "the invisible character U+{:04X} is not allowed",
                        u32::from(c)
                    ),
                )
                .help("remove it: the file would not mean what it looks like");
                fine = false;
            }
        }
    }
    fine
}

/// Reading ended early; why is in the sink.
struct Stop;

struct Composer<'a> {
    sink: &'a mut Sink,
    /// The collections around the present place.
    open: Vec<Open>,
    /// Anchored nodes, by the parser's numbers.
    anchors: Vec<(usize, Node)>,
    nodes: usize,
    alias_nodes: usize,
    anchored_nodes: usize,
    documents: usize,
    root: Option<Node>,
}

struct Open {
    anchor: usize,
    node: Node,
    /// In a mapping: the key whose value comes next.
    key: Option<Key>,
}

impl Composer<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.sink
                        .error(
                            codes::YAML,
                            span,
                            "the file has more than one YAML document",
                        )
                        .help("remove everything from the second `---` on");
                    return Err(Stop);
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tagged_string = match &tag {
                    None => false,
                    Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => true,
                    Some(_) => return self.refuse_tag(span),
                };
                let scalar = Scalar {
                    text: text.into_owned(),
                    is_string: tagged_string || style != ScalarStyle::Plain,
                };
                self.close(
                    Node {
                        span,
                        value: Value::Scalar(scalar),
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, None) => {
                self.open(span, anchor, Value::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, None) => {
                self.open(span, anchor, Value::Mapping(Vec::new()))
            }
            Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                self.refuse_tag(span)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, node, .. }) => self.close(node, anchor),
                None => Err(Stop),
            },
            Event::Alias(anchor) => self.alias(anchor, span),
        }
    }

    fn refuse_tag(&mut self, span: Span) -> Result<(), Stop> {
        self.sink
            .error(codes::YAML, span, "YAML tags are not supported")
            .help("remove the tag, or quote the value if it should be a string");
        Err(Stop)
    }

    fn open(&mut self, span: Span, anchor: usize, value: Value) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            return self.too_deep(span);
        }
        self.open.push(Open {
            anchor,
            node: Node { span, value },
            key: None,
        });
        Ok(())
    }

    fn too_deep(&mut self, span: Span) -> Result<(), Stop> {
        let message = format!("the file is nested more than {MAX_DEPTH} levels deep");
        self.sink.error(codes::TOO_LARGE, span, message);
        Err(Stop)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let Some((_, node)) = self.anchors.iter().find(|(id, _)| *id == anchor) else {
            self.sink.error(
                codes::YAML,
                span,
                "an alias can't stand inside the value that it names",
            );
            return Err(Stop);
        };
        self.alias_nodes += node.size();
        if self.alias_nodes > MAX_ALIAS_NODES {
            let message = format!("aliases expand to more than {MAX_ALIAS_NODES} values");
            self.sink.error(codes::TOO_LARGE, span, message);
            return Err(Stop);
        }
        if self.open.len() + node.depth() > MAX_DEPTH {
            return self.too_deep(span);
        }
        let mut node = node.clone();
        // Scalars are shown where the alias stands; inside of a collection the anchored text
        // is what a reader needs to see.
        if matches!(node.value, Value::Scalar(_)) {
            node.span = span;
        }
        self.close(node, 0)
    }

    /// Puts a finished node where it belongs.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values");
            self.sink.error(codes::TOO_LARGE, node.span, message);
            return Err(Stop);
        }
        if anchor != 0 {
            self.anchored_nodes += node.size();
            if self.anchored_nodes > MAX_ANCHORED_NODES {
                let message = format!("anchors name more than {MAX_ANCHORED_NODES} values");
                self.sink.error(codes::TOO_LARGE, node.span, message);
                return Err(Stop);
            }
            self.anchors.push((anchor, node.clone()));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.node.value, open.key.take()) {
            (Value::Sequence(items), _) => items.push(node),
            (Value::Mapping(entries), Some(key)) => entries.push((key, node)),
            (Value::Mapping(_), None) => {
                let span = node.span;
                let Value::Scalar(scalar) = node.value else {
                    self.sink.error(
                        codes::YAML,
                        span,
                        "a key must be a plain word, not a collection",
                    );
                    return Err(Stop);
                };
                open.key = Some(Key {
                    text: scalar.text,
                    span,
                });
            }
            (Value::Scalar(_), _) => return Err(Stop),
        }
        Ok(())
    }
}

fn place(span: ParserSpan) -> Span {
    // Only what stands on the first line can be underlined; the renderer cuts at its end.
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
