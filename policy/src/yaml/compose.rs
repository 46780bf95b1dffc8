//! Parser events to a tree, within limits.

use saphyr_parser::{Event, ScalarStyle};

use super::{Key, Node, Scalar, Value};
use crate::codes;
use crate::diagnostic::{Sink, Span};

/// Deepest nesting. The format itself needs 6.
const MAX_DEPTH: usize = 64;
/// Most values and keys.
const MAX_NODES: usize = 1_000_000;
/// Most nodes that aliases may add.
const MAX_ALIAS_NODES: usize = 10_000;
/// Most nodes in anchored values, counted once for each anchor around them.
const MAX_ANCHORED_NODES: usize = 100_000;

/// Reading ended early; why is in the sink.
pub(super) struct Stop;

pub(super) struct Composer<'a> {
    pub(super) sink: &'a mut Sink,
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

impl<'a> Composer<'a> {
    pub(super) fn new(sink: &'a mut Sink) -> Self {
        Self {
            sink,
            open: Vec::new(),
            anchors: Vec::new(),
            nodes: 0,
            alias_nodes: 0,
            anchored_nodes: 0,
            documents: 0,
            root: None,
        }
    }

    /// The document, if there was one.
    pub(super) fn finish(self) -> Option<Node> {
        self.root
    }

    pub(super) fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
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
