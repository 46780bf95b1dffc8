//! Reading mappings: known keys, and values of the expected kind.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::codes;
use crate::diagnostic::{Sink, Span};
use crate::yaml::{Key, Kind, Node, Scalar, Value, nearest, short};

/// A mapping whose keys are each there once.
pub(super) struct Fields<'a> {
    what: &'a str,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// `example` goes into the error when the node is no mapping.
    pub(super) fn open(
        node: &'a Node,
        what: &'a str,
        example: &str,
        sink: &mut Sink,
    ) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            wrong_type(node, what, "a mapping", example, sink);
            return None;
        };
        let mut seen = std::collections::HashMap::with_capacity(entries.len());
        for (key, _) in entries {
            if let Some(first) = seen.insert(key.text.as_str(), key.span) {
                let message = format!("the key `{}` stands twice in {what}", short(&key.text));
                sink.error(codes::DUPLICATE_KEY, key.span, message)
                    .help("remove one of the two")
                    .related(first, "first here");
            }
        }
        Some(Self { what, entries })
    }

    /// Complains of every key that is in neither list and notes those of other tools.
    pub(super) fn check_keys(&self, known: &[&str], foreign: &[&str], sink: &mut Sink) {
        for (key, _) in self.entries {
            let text = key.text.as_str();
            if known.contains(&text) {
                continue;
            }
            if foreign.contains(&text) {
                let message = format!("`{text}` belongs to another tool and is ignored");
                sink.note(codes::FOREIGN_KEY, key.span, message);
                continue;
            }
            let message = format!("`{}` is not a key of {}", short(text), self.what);
            let help = if text == "<<" {
                "merge keys are not supported: write the keys out".to_owned()
            } else if let Some(near) = nearest(text, known.iter().chain(foreign).copied()) {
                format!("did you mean `{near}`?")
            } else {
                format!("the keys are {}", known.join(", "))
            };
            sink.error(codes::UNKNOWN_KEY, key.span, message).help(help);
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &'a (Key, Node)> {
        self.entries.iter()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(k, _)| k.text == key)
            .map(|(_, node)| node)
    }

    /// The place of a key's value, or of the first key if it is not there.
    pub(super) fn span(&self, key: &str) -> Span {
        self.get(key)
            .map(|node| node.span)
            .or(self.entries.first().map(|(key, _)| key.span))
            .unwrap_or(Span::START)
    }

    pub(super) fn string(&self, key: &str, example: &str, sink: &mut Sink) -> Option<String> {
        string(self.get(key)?, key, example, sink)
    }

    pub(super) fn port(&self, key: &str, example: u16, sink: &mut Sink) -> Option<NonZeroU16> {
        port(self.get(key)?, key, example, sink)
    }

    /// A key that has to be there. Its absence is reported at `at`.
    pub(super) fn required_port(
        &self,
        key: &str,
        example: u16,
        at: Span,
        sink: &mut Sink,
    ) -> Option<NonZeroU16> {
        if self.get(key).is_none() {
            let message = format!("{} needs `{key}`", self.what);
            sink.error(codes::MISSING_KEY, at, message)
                .help(format!("for example `{key}: {example}`"));
        }
        self.port(key, example, sink)
    }

    pub(super) fn duration(
        &self,
        key: &str,
        longest: Duration,
        sink: &mut Sink,
    ) -> Option<Duration> {
        duration(self.get(key)?, key, longest, sink)
    }
}

pub(super) fn wrong_type(node: &Node, what: &str, wanted: &str, example: &str, sink: &mut Sink) {
    let message = format!("{what} must be {wanted}, not {}", node.describe());
    sink.error(codes::WRONG_TYPE, node.span, message)
        .help(format!("for example {example}"));
}

/// The scalar of a node that must be a string.
pub(super) fn text<'a>(
    node: &'a Node,
    what: &str,
    example: &str,
    sink: &mut Sink,
) -> Option<&'a Scalar> {
    match &node.value {
        Value::Scalar(scalar) if scalar.kind() == Kind::String => Some(scalar),
        _ => {
            wrong_type(node, what, "a string", example, sink);
            None
        }
    }
}

pub(super) fn string(node: &Node, key: &str, example: &str, sink: &mut Sink) -> Option<String> {
    let what = format!("`{key}`");
    let example = format!("`{key}: {example}`");
    text(node, &what, &example, sink).map(|scalar| scalar.text.clone())
}

/// The items of a list; a missing value is an empty list, as in Enclaver's manifests.
pub(super) fn list<'a>(node: &'a Node, what: &str, example: &str, sink: &mut Sink) -> &'a [Node] {
    match &node.value {
        Value::Sequence(items) => items,
        _ if node.is_null() => &[],
        _ => {
            wrong_type(node, what, "a list", example, sink);
            &[]
        }
    }
}

/// A port on which something listens.
fn port(node: &Node, key: &str, example: u16, sink: &mut Sink) -> Option<NonZeroU16> {
    let example = format!("`{key}: {example}`");
    let value = match &node.value {
        Value::Scalar(scalar) if scalar.kind() == Kind::Integer => scalar.text.parse::<u16>(),
        _ => {
            wrong_type(node, &format!("`{key}`"), "a port number", &example, sink);
            return None;
        }
    };
    let port = value.ok().and_then(NonZeroU16::new);
    if port.is_none() {
        let message = format!(
            "`{key}` must be a port from 1 to 65535, not {}",
            node.describe()
        );
        sink.error(codes::BAD_PORT, node.span, message)
            .help(format!("for example {example}"));
    }
    port
}

fn duration(node: &Node, key: &str, longest: Duration, sink: &mut Sink) -> Option<Duration> {
    const EXAMPLE: &str = "`30s`; the units are ms, s, m and h";
    let Value::Scalar(scalar) = &node.value else {
        wrong_type(node, &format!("`{key}`"), "a duration", EXAMPLE, sink);
        return None;
    };
    if scalar.kind() == Kind::Integer {
        let message = format!("`{key}` has no unit");
        sink.error(codes::BAD_VALUE, node.span, message)
            .help(format!("for example `{key}: {}s`", scalar.text));
        return None;
    }
    let Some(duration) = parse_duration(&scalar.text) else {
        wrong_type(node, &format!("`{key}`"), "a duration", EXAMPLE, sink);
        return None;
    };
    if duration > longest {
        let message = format!("`{key}` can be at most {} seconds", longest.as_secs());
        sink.error(codes::BAD_VALUE, node.span, message);
        return None;
    }
    Some(duration)
}

/// Digits and a unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (digits, unit) = text.split_at_checked(digits)?;
    let count: u64 = digits.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => count.checked_mul(60).map(Duration::from_secs),
        "h" => count.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, wanted) in [
            ("30s", Some(30_000)),
            ("500ms", Some(500)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("30", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("1 s", None),
            ("30S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            let found = parse_duration(text).map(|d| d.as_millis());
            assert_eq!(found, wanted, "{text}");
        }
    }
}
