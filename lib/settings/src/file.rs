//! The file, a mapping without duplicate keys.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use odyn_yaml::{Anchors, ProblemKind, Span, YamlKey, YamlNode, YamlValue, short};

use crate::error::{FileMistake, SettingsError};

/// Longest file in bytes. A list of ten thousand networks has a twentieth of it.
const LONGEST: u64 = 4 << 20;

/// The text of a file.
pub(crate) fn read(path: &Arc<Path>, named: bool) -> Result<String, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable {
        path: path.to_path_buf(),
        named,
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let wrong =
        |span, message: String| SettingsError::Wrong(vec![FileMistake::new(path, span, message)]);
    if bytes.len() as u64 > LONGEST {
        let message = format!("the file is larger than {} MiB", LONGEST >> 20);
        return Err(wrong(Span::START, message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..good).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let span = Span {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            ..Span::START
        };
        wrong(span, "the file is not UTF-8 text".to_owned())
    })
}

/// The keys and values of a file. A file with comments only has none.
pub(crate) fn entries(
    path: &Arc<Path>,
    text: &str,
) -> Result<Vec<(YamlKey, YamlNode)>, SettingsError> {
    let root = match odyn_yaml::parse(text, Anchors::Refused) {
        Ok(root) => root,
        Err(problems) if problems.iter().any(|p| p.kind == ProblemKind::Empty) => {
            return Ok(Vec::new());
        }
        Err(problems) => {
            let wrong = problems
                .into_iter()
                .map(|p| FileMistake::from_problem(path, p));
            return Err(SettingsError::Wrong(wrong.collect()));
        }
    };
    let what = root.describe();
    let YamlValue::Mapping(entries) = root.value else {
        let message = format!("the settings must be a mapping, not {what}");
        let wrong = FileMistake::new(path, root.span, message).help("write `key: value` lines");
        return Err(SettingsError::Wrong(vec![wrong]));
    };
    let mut seen = HashMap::new();
    let mut twice = Vec::new();
    for (key, _) in &entries {
        if let Some(first) = seen.insert(name(&key.text), key.span) {
            let message = format!("the key `{}` stands twice", short(&key.text));
            let help = format!("remove one of the two: the first is in line {}", first.line);
            twice.push(FileMistake::new(path, key.span, message).help(help));
        }
    }
    if twice.is_empty() {
        Ok(entries)
    } else {
        Err(SettingsError::Wrong(twice))
    }
}

/// A key or a long flag in the form that is compared and shown.
pub(crate) fn name(text: &str) -> String {
    text.replace('-', "_")
}
