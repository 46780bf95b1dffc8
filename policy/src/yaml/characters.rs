//! Characters that a policy text must not have.

use crate::codes;
use crate::diagnostic::{Sink, Span};

/// YAML allows hardly any control characters, and the parser takes U+0000 for the end of the
/// text: everything after it, deny rules too, would silently not be there.
pub(super) fn check(text: &str, sink: &mut Sink) -> bool {
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
