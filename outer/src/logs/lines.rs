//! Log lines of guests for people and for the journal.
//!
//! ```text
//! 2026-11-21T01:02:03.123456Z payments stdout a line
//! 2026-11-21T01:02:03.123456Z payments stdout+ the first part of a line that is too long
//! ```
//!
//! A guest cannot write a line that looks like another guest's, or a command to a terminal.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use odyn_proto::wire::feed::FeedRecord;

/// Longest text of one line, in bytes. Longer text continues on the next line.
const MAX_TEXT: usize = 16 * 1024;
/// The last second of the year 9999, the latest that the format has. A guest's clock may be wrong.
const LAST_SECOND: u64 = 253_402_300_799;

/// The label and the feed at the start of each line.
#[derive(Debug, Clone)]
pub(crate) struct LinePrefix {
    label: String,
    feed: &'static str,
}

impl LinePrefix {
    pub(super) fn new(label: &str, feed: &'static str) -> Self {
        Self {
            label: label.to_owned(),
            feed,
        }
    }

    /// The lines of a record, each with its newline.
    pub(super) fn lines<'a>(&'a self, record: &'a FeedRecord) -> impl Iterator<Item = String> + 'a {
        let at = Duration::from_micros(record.at).min(Duration::from_secs(LAST_SECOND));
        let time = humantime::format_rfc3339_micros(UNIX_EPOCH + at);
        pieces(&record.bytes).map(move |(text, ended)| {
            let goes_on = if ended { "" } else { "+" };
            let mut line = format!("{time} {} {}{goes_on} ", self.label, self.feed);
            escape(text, &mut line);
            line.push('\n');
            line
        })
    }
}

/// Splits bytes into lines, and long lines into pieces. `true` marks the end of a line.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let window = &rest[..rest.len().min(MAX_TEXT + 1)];
        if let Some(end) = window.iter().position(|&byte| byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            return Some((line, true));
        }
        let (piece, more) = rest.split_at(cut(rest));
        rest = more;
        Some((piece, false))
    })
}

/// Where to split a line that is too long: not inside a character.
fn cut(bytes: &[u8]) -> usize {
    if bytes.len() <= MAX_TEXT {
        return bytes.len();
    }
    let is_inside = |at: &usize| bytes[*at] & 0xc0 == 0x80;
    (MAX_TEXT - 3..=MAX_TEXT)
        .rev()
        .find(|at| !is_inside(at))
        .unwrap_or(MAX_TEXT)
}

/// Copies text. Escapes bytes that are no text, and characters that move text about.
fn escape(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => out.push(c),
                '\r' => out.push_str("\\r"),
                // Bidirectional overrides and line separators are no control characters in Unicode.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => {
                    out.extend(c.escape_unicode());
                }
                c if c.is_ascii_control() => {
                    let _ = write!(out, "\\x{:02x}", u32::from(c));
                }
                c if c.is_control() => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let record = FeedRecord {
            at: 1_795_222_923_123_456,
            bytes: Bytes::copy_from_slice(bytes),
        };
        LinePrefix::new("payments", "stdout")
            .lines(&record)
            .collect()
    }

    #[test]
    fn each_line_says_whose_it_is() {
        assert_eq!(
            lines(b"one\n\nthree"),
            [
                "2026-11-21T01:02:03.123456Z payments stdout one\n",
                "2026-11-21T01:02:03.123456Z payments stdout \n",
                "2026-11-21T01:02:03.123456Z payments stdout+ three\n",
            ]
        );
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn what_is_not_text_is_escaped() {
        let wild = "a\rb\0\u{1b}[2J\u{9b}1m\u{202e}x\ttab größe".as_bytes();
        let all = [wild, b" \xff\xfe\n"].concat();
        let line = lines(&all).remove(0);
        assert!(
            line.ends_with("a\\rb\\x00\\x1b[2J\\u{9b}1m\\u{202e}x\ttab größe \\xff\\xfe\n"),
            "{line:?}"
        );
    }

    #[test]
    fn a_line_of_any_length_is_cut_between_characters() {
        let long = "ä".repeat(100_000) + "\nshort\n";
        let lines = lines(long.as_bytes());
        let mut text = String::new();
        for line in &lines {
            assert!(line.len() < MAX_TEXT + 100, "{}", line.len());
            let (head, rest) = line.split_once(" stdout").unwrap();
            assert!(head.ends_with(" payments"));
            let rest = rest.strip_suffix('\n').unwrap();
            match rest.strip_prefix("+ ") {
                Some(part) => text.push_str(part),
                None => text = text + &rest[1..] + "\n",
            }
        }
        assert!(text == long);
    }

    #[test]
    fn a_clock_that_is_wrong_is_no_harm() {
        let record = FeedRecord {
            at: u64::MAX,
            bytes: Bytes::from_static(b"x\n"),
        };
        let line = LinePrefix::new("a", "log").lines(&record).next().unwrap();
        assert!(line.starts_with("9999-12-31T23:59:59"), "{line}");
    }
}
