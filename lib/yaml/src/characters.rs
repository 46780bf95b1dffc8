//! Characters that a text must not have.

use crate::{ProblemKind, Span, YamlProblem};

/// Most invisible characters that are reported.
const MAX_HIDDEN: usize = 10_000;

/// Finds control characters. YAML allows hardly any.
///
/// The parser takes U+0000 for the end of the text, and would silently ignore everything after it.
pub(super) fn check(text: &str) -> Result<(), Vec<YamlProblem>> {
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
        return Ok(());
    }
    let mut found = Vec::new();
    for (line, content) in (1..).zip(text.split('\n')) {
        for (column, c) in (1..).zip(content.chars()) {
            let span = Span {
                line,
                column,
                len: 1,
            };
            if bad(c) {
                let message = format!(
                    "the control character U+{:04X} is not allowed",
                    u32::from(c)
                );
                found.push(YamlProblem::syntax(span, message));
                return Err(found);
            }
            if hidden(c) && found.len() < MAX_HIDDEN {
                let message = format!(
                    "the invisible character U+{:04X} is not allowed",
                    u32::from(c)
                );
                found.push(
                    YamlProblem::new(ProblemKind::HiddenCharacter, span, message)
                        .help("remove it: the file would not mean what it looks like"),
                );
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}
