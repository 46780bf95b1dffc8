//! Horizontal bars, readable on a light page and on a dark one.

use std::fmt::Write as _;

use super::results::{Results, Row};
use super::{number, range};
use crate::contenders::Family;

const WIDTH: u32 = 760;
const LABELS: u32 = 170;
const VALUES: u32 = 170;
const BAR: u32 = 14;
const LINE: u32 = 20;
const HEAD: u32 = 34;
const TITLE: u32 = 40;

/// Colours for both kinds of page: the picture itself has no background. Viewers that do not know
/// the question for the page's kind show the first ones, which can be read on either.
const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #6e7781; }
  .title { font-size: 16px; font-weight: 600; }
  .figure { font-weight: 600; }
    .range { stroke: #6e7781; stroke-width: 1.5; }
  .ours { fill: #d9730d; } .pair { fill: #4f81bd; } .user-mode { fill: #4f9d69; } .direct { fill: #9aa4af; }
  @media (prefers-color-scheme: light) {
    text { fill: #24292f; }
    .value, .unit { fill: #57606a; }
    .range { stroke: #24292f; }
  }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .value, .unit { fill: #9da7b1; }
    .range { stroke: #e6edf3; }
    .ours { fill: #f0883e; } .pair { fill: #6ea8e8; } .user-mode { fill: #6cc58b; } .direct { fill: #6e7681; }
  }
";

/// All figures of a group, one below the other.
pub(super) fn picture(title: &str, rows: &[&Row], results: &Results) -> String {
    let mut body = String::new();
    let mut y = TITLE;
    for row in rows {
        y = figure(&mut body, row, results, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" \
         height=\"{y}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"0\" y=\"20\">{title}</text>\n{body}</svg>\n",
        title = escape(title)
    )
}

/// Draws a figure; returns the place of the next.
fn figure(body: &mut String, row: &Row, results: &Results, top: u32) -> u32 {
    let names: Vec<&String> = results
        .order
        .iter()
        .filter(|name| row.samples.contains_key(*name))
        .collect();
    let most = row.samples.values().flatten().copied().fold(0.0, f64::max);
    let scale = f64::from(WIDTH - LABELS - VALUES) / if most > 0.0 { most } else { 1.0 };
    let better = match row.figure.more_is_better {
        true => "more is better",
        false => "less is better",
    };
    let _ = writeln!(
        body,
        "<text class=\"figure\" x=\"0\" y=\"{}\">{} <tspan class=\"unit\" font-weight=\"400\">{}, {better}</tspan></text>",
        top + 22,
        escape(&row.figure.name),
        escape(&row.figure.unit),
    );
    let mut y = top + HEAD;
    for name in names {
        let samples = row.samples.get(name).map_or(&[][..], Vec::as_slice);
        let value = row.median(name).unwrap_or(0.0);
        let (low, high) = range(samples);
        let across = |value: f64| f64::from(LABELS) + value.max(0.0) * scale;
        let family = results.family(name);
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{LABELS}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
            LABELS - 8,
            y + 11,
            escape(name),
            class(family),
            (value.max(0.0) * scale).max(1.0),
        );
        if samples.len() > 1 {
            let _ = writeln!(
                body,
                "<line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{m}\" y2=\"{m}\"/>",
                across(low),
                across(high),
                m = y + BAR / 2
            );
        }
        let text = match samples.len() {
            1 => number(value),
            _ => format!("{} ({}–{})", number(value), number(low), number(high)),
        };
        let _ = writeln!(
            body,
            "<text class=\"value\" x=\"{:.1}\" y=\"{}\">{text}</text>",
            across(high.max(value)) + 8.0,
            y + 11
        );
        y += LINE;
    }
    y + 6
}

fn class(family: Option<Family>) -> &'static str {
    match family {
        Some(Family::Ours) => "ours",
        Some(Family::Pair) => "pair",
        Some(Family::UserMode) => "user-mode",
        Some(Family::Direct) | None => "direct",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::Figure;

    #[test]
    fn names_are_text_and_nothing_else() {
        let mut row = Row::new(Figure {
            id: "x".into(),
            group: "bulk".into(),
            name: "<b> & \"c\"".into(),
            unit: "/s".into(),
            more_is_better: true,
        });
        row.samples.insert("odyn-net".into(), vec![1.0, 2.0, 3.0]);
        let results = Results {
            contenders: [("odyn-net".to_owned(), Family::Ours)].into(),
            order: vec!["odyn-net".into()],
            ..Results::default()
        };
        let text = picture("A & B", &[&row], &results);
        assert!(text.contains("&lt;b&gt; &amp; &quot;c&quot;"), "{text}");
        assert!(text.contains("2.00 (1.00–3.00)"), "{text}");
    }
}
