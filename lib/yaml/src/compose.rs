//! The tree from the parser's events, within limits.

use saphyr_parser::{Event, ScalarStyle};

use crate::{Anchors, Scalar, Span, YamlKey, YamlNode, YamlProblem, YamlValue};

/// Deepest nesting. The policy format needs 6.
const MAX_DEPTH: usize = 64;
/// Most values and keys.
const MAX_NODES: usize = 1_000_000;
/// Most nodes that aliases may add.
const MAX_ALIAS_NODES: usize = 10_000;
/// Most nodes in anchored values, counted once for each anchor around them.
const MAX_ANCHORED_NODES: usize = 100_000;

pub(super) struct Composer {
    allowed: Anchors,
    /// The open collections.
    open: Vec<OpenCollection>,
    /// Anchored nodes, by the parser's numbers.
    anchors: Vec<(usize, YamlNode)>,
    nodes: usize,
    alias_nodes: usize,
    anchored_nodes: usize,
    documents: usize,
    root: Option<YamlNode>,
}

struct OpenCollection {
    anchor: usize,
    node: YamlNode,
    /// The key whose value comes next, in a mapping.
    key: Option<YamlKey>,
}

impl Composer {
    pub(super) fn new(allowed: Anchors) -> Self {
        Self {
            allowed,
            open: Vec::new(),
            anchors: Vec::new(),
            nodes: 0,
            alias_nodes: 0,
            anchored_nodes: 0,
            documents: 0,
            root: None,
        }
    }

    /// The document, if it was read.
    pub(super) fn finish(self) -> Option<YamlNode> {
        self.root
    }

    pub(super) fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlProblem> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(YamlProblem::syntax(
                        span,
                        "the file has more than one YAML document",
                    )
                    .help("remove everything from the second `---` on"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tagged_string = match &tag {
                    None => false,
                    Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => true,
                    Some(_) => return Err(tag_refused(span)),
                };
                let scalar = Scalar {
                    text: text.into_owned(),
                    is_string: tagged_string || style != ScalarStyle::Plain,
                };
                self.close(
                    YamlNode {
                        span,
                        value: YamlValue::Scalar(scalar),
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, None) => {
                self.open(span, anchor, YamlValue::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, None) => {
                self.open(span, anchor, YamlValue::Mapping(Vec::new()))
            }
            Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                Err(tag_refused(span))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(OpenCollection { anchor, node, .. }) => self.close(node, anchor),
                None => Err(unbalanced(span)),
            },
            Event::Alias(anchor) => self.alias(anchor, span),
        }
    }

    fn open(&mut self, span: Span, anchor: usize, value: YamlValue) -> Result<(), YamlProblem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.open.push(OpenCollection {
            anchor,
            node: YamlNode { span, value },
            key: None,
        });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), YamlProblem> {
        let Some((_, node)) = self.anchors.iter().find(|(id, _)| *id == anchor) else {
            return Err(YamlProblem::syntax(
                span,
                "an alias can't stand inside the value that it names",
            ));
        };
        self.alias_nodes += node.size();
        if self.alias_nodes > MAX_ALIAS_NODES {
            let message = format!("aliases expand to more than {MAX_ALIAS_NODES} values");
            return Err(YamlProblem::too_large(span, message));
        }
        if self.open.len() + node.depth() > MAX_DEPTH {
            return Err(too_deep(span));
        }
        let mut node = node.clone();
        // A scalar gets the place of its alias. A collection keeps the place of the anchored text,
        // which a reader needs to see.
        if matches!(node.value, YamlValue::Scalar(_)) {
            node.span = span;
        }
        self.close(node, 0)
    }

    /// Adds a finished node to its collection.
    fn close(&mut self, node: YamlNode, anchor: usize) -> Result<(), YamlProblem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values");
            return Err(YamlProblem::too_large(node.span, message));
        }
        if anchor != 0 {
            if self.allowed == Anchors::Refused {
                return Err(
                    YamlProblem::syntax(node.span, "anchors are not supported here")
                        .help("remove `&name` and write the value where it is used"),
                );
            }
            self.anchored_nodes += node.size();
            if self.anchored_nodes > MAX_ANCHORED_NODES {
                let message = format!("anchors name more than {MAX_ANCHORED_NODES} values");
                return Err(YamlProblem::too_large(node.span, message));
            }
            self.anchors.push((anchor, node.clone()));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.node.value, open.key.take()) {
            (YamlValue::Sequence(items), _) => items.push(node),
            (YamlValue::Mapping(entries), Some(key)) => entries.push((key, node)),
            (YamlValue::Mapping(_), None) => {
                let span = node.span;
                let YamlValue::Scalar(scalar) = node.value else {
                    return Err(YamlProblem::syntax(
                        span,
                        "a key must be a plain word, not a collection",
                    ));
                };
                open.key = Some(YamlKey {
                    text: scalar.text,
                    span,
                });
            }
            (YamlValue::Scalar(_), _) => return Err(unbalanced(node.span)),
        }
        Ok(())
    }
}

fn tag_refused(span: Span) -> YamlProblem {
    YamlProblem::syntax(span, "YAML tags are not supported")
        .help("remove the tag, or quote the value if it should be a string")
}

fn too_deep(span: Span) -> YamlProblem {
    let message = format!("the file is nested more than {MAX_DEPTH} levels deep");
    YamlProblem::too_large(span, message)
}

/// The parser pairs starts and ends, so this is not reachable.
fn unbalanced(span: Span) -> YamlProblem {
    YamlProblem::syntax(span, "a value ends that has not begun")
}
