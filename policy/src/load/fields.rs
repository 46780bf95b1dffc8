//! Readers of mappings: known keys, and values of the expected type.

use std::num::NonZeroU16;
use std::time::Duration;

use super::keys::MappingKeys;
use crate::codes;
use crate::diagnostic::{DiagnosticSink, Span};
use crate::yaml::{Scalar, ScalarKind, YamlKey, YamlNode, YamlValue, nearest, short};

/// A mapping without duplicate keys.
pub(super) struct Fields<'a> {
    what: &'a str,
    entries: &'a [(YamlKey, YamlNode)],
}

impl<'a> Fields<'a> {
    /// Opens a mapping. `example` goes into the error if the node is not one.
    pub(super) fn open(
        node: &'a YamlNode,
        what: &'a str,
        example: &str,
        sink: &mut DiagnosticSink,
    ) -> Option<Self> {
        let YamlValue::Mapping(entries) = &node.value else {
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

    /// Reports each key that the mapping does not have, and notes those of other tools.
    pub(super) fn check_keys(&self, keys: &MappingKeys, sink: &mut DiagnosticSink) {
        let (known, foreign) = (keys.known, keys.foreign);
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

    pub(super) fn entries(&self) -> impl Iterator<Item = &'a (YamlKey, YamlNode)> {
        self.entries.iter()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a YamlNode> {
        self.entries
            .iter()
            .find(|(k, _)| k.text == key)
            .map(|(_, node)| node)
    }

    /// The place of a key's value, or of the first key if the key is missing.
    pub(super) fn span(&self, key: &str) -> Span {
        self.get(key)
            .map(|node| node.span)
            .or(self.entries.first().map(|(key, _)| key.span))
            .unwrap_or(Span::START)
    }

    pub(super) fn string(
        &self,
        key: &str,
        example: &str,
        sink: &mut DiagnosticSink,
    ) -> Option<String> {
        string(self.get(key)?, key, example, sink)
    }

    pub(super) fn port(
        &self,
        key: &str,
        example: u16,
        sink: &mut DiagnosticSink,
    ) -> Option<NonZeroU16> {
        port(self.get(key)?, key, example, sink)
    }

    /// The port of a required key. A missing key is reported at `at`.
    pub(super) fn required_port(
        &self,
        key: &str,
        example: u16,
        at: Span,
        sink: &mut DiagnosticSink,
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
        sink: &mut DiagnosticSink,
    ) -> Option<Duration> {
        duration(self.get(key)?, key, longest, sink)
    }
}

pub(super) fn wrong_type(
    node: &YamlNode,
    what: &str,
    wanted: &str,
    example: &str,
    sink: &mut DiagnosticSink,
) {
    let message = format!("{what} must be {wanted}, not {}", node.describe());
    sink.error(codes::WRONG_TYPE, node.span, message)
        .help(format!("for example {example}"));
}

/// The scalar of a node that must be a string.
pub(super) fn text<'a>(
    node: &'a YamlNode,
    what: &str,
    example: &str,
    sink: &mut DiagnosticSink,
) -> Option<&'a Scalar> {
    match &node.value {
        YamlValue::Scalar(scalar) if scalar.kind() == ScalarKind::String => Some(scalar),
        _ => {
            wrong_type(node, what, "a string", example, sink);
            None
        }
    }
}

pub(super) fn string(
    node: &YamlNode,
    key: &str,
    example: &str,
    sink: &mut DiagnosticSink,
) -> Option<String> {
    let what = format!("`{key}`");
    let example = format!("`{key}: {example}`");
    text(node, &what, &example, sink).map(|scalar| scalar.text.clone())
}

/// The items of a list. A missing value is an empty list, as in Enclaver's manifests.
pub(super) fn list<'a>(
    node: &'a YamlNode,
    what: &str,
    example: &str,
    sink: &mut DiagnosticSink,
) -> &'a [YamlNode] {
    match &node.value {
        YamlValue::Sequence(items) => items,
        _ if node.is_null() => &[],
        _ => {
            wrong_type(node, what, "a list", example, sink);
            &[]
        }
    }
}

/// A port on which something listens.
fn port(node: &YamlNode, key: &str, example: u16, sink: &mut DiagnosticSink) -> Option<NonZeroU16> {
    let example = format!("`{key}: {example}`");
    let value = match &node.value {
        YamlValue::Scalar(scalar) if scalar.kind() == ScalarKind::Integer => {
            scalar.text.parse::<u16>()
        }
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

fn duration(
    node: &YamlNode,
    key: &str,
    longest: Duration,
    sink: &mut DiagnosticSink,
) -> Option<Duration> {
    const EXAMPLE: &str = "`30s`; the units are ms, s, m and h";
    let YamlValue::Scalar(scalar) = &node.value else {
        wrong_type(node, &format!("`{key}`"), "a duration", EXAMPLE, sink);
        return None;
    };
    if scalar.kind() == ScalarKind::Integer {
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
