//! Findings as text, as compilers print them.

use std::fmt;
use std::fmt::Write;

use crate::diagnostic::{Diagnostic, Span};

/// A finding with its source line and a caret under the place; ends with a newline.
///
/// `text` is the text of the file. For many findings about one file, use a [`Renderer`].
#[must_use]
pub fn render(diagnostic: &Diagnostic, text: &str) -> String {
    Renderer::new(text).render(diagnostic)
}

/// The lines of a file, for the text of findings.
///
/// Control characters of the file are not passed on: a policy file must not be able to speak to
/// the terminal of the person who checks it.
#[derive(Debug)]
pub struct Renderer<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Renderer<'a> {
    /// Takes the text of the file.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self {
            lines: text.lines().collect(),
        }
    }

    /// As the function [`render`].
    #[must_use]
    pub fn render(&self, diagnostic: &Diagnostic) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = write_to(&mut out, diagnostic, &self.lines);
        out
    }
}

fn write_to(out: &mut String, diagnostic: &Diagnostic, lines: &[&str]) -> fmt::Result {
    let Diagnostic {
        severity,
        code,
        message,
        help,
        file,
        span,
        related,
        ..
    } = diagnostic;
    let widest = related.iter().map(|r| r.span.line).chain([span.line]).max();
    let margin = widest.unwrap_or(1).to_string().len();
    writeln!(out, "{severity}[{code}]: {}", Plain(message))?;
    snippet(out, file, *span, lines, margin, '^')?;
    if let Some(help) = help {
        writeln!(out, "{:margin$} = help: {}", "", Plain(help))?;
    }
    for other in related {
        writeln!(out, "{:margin$} = note: {}", "", Plain(&other.message))?;
        snippet(out, file, other.span, lines, margin, '-')?;
    }
    Ok(())
}

fn snippet(
    out: &mut String,
    file: &str,
    span: Span,
    lines: &[&str],
    margin: usize,
    mark: char,
) -> fmt::Result {
    let Span { line, column, len } = span;
    writeln!(out, "{:margin$}--> {}:{line}:{column}", "", Plain(file))?;
    let Some(source) = (line as usize)
        .checked_sub(1)
        .and_then(|n| lines.get(n))
        .filter(|source| !source.trim().is_empty())
    else {
        return Ok(());
    };
    // Long lines are shown in part: a window that starts a little before the place.
    const WINDOW: usize = 160;
    let column = (column as usize).saturating_sub(1);
    let start = if column > WINDOW / 2 {
        column - WINDOW / 4
    } else {
        0
    };
    let (lead, tail) = (start > 0, source.chars().skip(start).nth(WINDOW).is_some());
    let shown: String = source.chars().skip(start).take(WINDOW).collect();
    let (before, after) = if lead {
        ("…", column - start)
    } else {
        ("", column)
    };
    writeln!(out, "{:margin$} |", "")?;
    write!(out, "{line:margin$} | {before}{}", Plain(&shown))?;
    out.push_str(if tail { "…\n" } else { "\n" });
    // Tabs stay tabs, so that the caret is under its place whatever a tab's width.
    let indent: String = before
        .chars()
        .chain(shown.chars().take(after))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let room = shown.chars().count().saturating_sub(after).max(1);
    let carets = (len as usize).clamp(1, room);
    write!(out, "{:margin$} | {indent}", "")?;
    out.extend(std::iter::repeat_n(mark, carets));
    out.push('\n');
    Ok(())
}

/// Text with a replacement for every control character.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let hostile = (c.is_control() && c != '\t')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            f.write_char(if hostile { '\u{fffd}' } else { c })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::load;

    fn rendered(text: &str) -> Vec<String> {
        let loaded = load("p.yaml", text);
        loaded
            .diagnostics
            .iter()
            .map(|d| super::render(d, text))
            .collect()
    }

    #[test]
    fn caret_under_the_value() {
        let text = "version: v1\negress:\n  allow:\n    - 10.1.0.0/33\n";
        assert_eq!(
            rendered(text),
            [
                "error[bad-address]: `10.1.0.0/33` is not a network: `/33` is not a prefix length
 --> p.yaml:4:7
  |
4 |     - 10.1.0.0/33
  |       ^^^^^^^^^^^
  = help: it must be a number from 0 to 32
"
            ]
        );
    }

    #[test]
    fn a_second_place() {
        let text = "version: v1\nname: a\nname: b\n";
        assert_eq!(
            rendered(text),
            [
                "error[duplicate-key]: the key `name` stands twice in the policy
 --> p.yaml:3:1
  |
3 | name: b
  | ^^^^
  = help: remove one of the two
  = note: first here
 --> p.yaml:2:1
  |
2 | name: a
  | ----
"
            ]
        );
    }

    #[test]
    fn nothing_reaches_the_terminal_as_a_command() {
        let text = "version: v1\nname: \"\u{1b}[2J\"\n";
        let all = rendered(text).concat();
        assert!(!all.contains('\u{1b}'), "{all:?}");
        assert!(all.contains("U+001B"), "{all}");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!(
            "version: v1\negress: {{ allow: [{} 10.1.0.0/33] }}\n",
            "a.example,".repeat(100)
        );
        let all = rendered(&text).concat();
        let lines: Vec<&str> = all.lines().collect();
        let at = |line: &str, what: &str| line.find(what).map(|n| line[..n].chars().count());
        assert_eq!(at(lines[3], "10.1.0.0/33"), at(lines[4], "^"), "{all}");
        assert!(lines.iter().all(|l| l.chars().count() < 200), "{all}");
    }
}
