//! The output of a run: results, tables, verdicts on the targets, pictures.

mod ratios;
pub(crate) mod results;
mod svg;
mod table;
mod targets;

use std::path::Path;

use anyhow::Context;

use results::Results;

/// The whole text: machine, tables, targets, notes.
pub(crate) fn text(results: &Results) -> String {
    let mut text = results.machine.describe(results);
    text.push_str(&table::tables(results));
    text.push_str(&targets::verdicts(results));
    if !results.notes.is_empty() {
        text.push_str("\nNotes:\n\n");
        for note in &results.notes {
            text.push_str(&format!("- {note}\n"));
        }
    }
    text
}

/// A table of everybody beside `peer`, when it took part.
pub(crate) fn ratios(results: &Results, peer: &str) -> String {
    match results.order.iter().any(|name| name == peer) {
        true => ratios::table(results, peer),
        false => String::new(),
    }
}

/// Draws a picture for each group of figures.
pub(crate) fn pictures(results: &Results, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for (group, title) in GROUPS {
        let rows = results.group(group);
        if rows.is_empty() {
            continue;
        }
        let path = dir.join(format!("{group}.svg"));
        std::fs::write(&path, svg::picture(title, &rows, results))
            .with_context(|| path.display().to_string())?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// Groups of figures in their order, with what they are called.
const GROUPS: [(&str, &str); 10] = [
    ("bulk", "Bulk throughput"),
    ("cpu", "CPU time of guest and host"),
    ("connections", "Connections"),
    ("latency", "Latency"),
    ("http", "HTTP through ingress"),
    ("udp", "UDP"),
    ("dns", "DNS"),
    ("start", "Start"),
    ("memory", "Memory"),
    ("churn", "Memory after connections that came and went"),
];

/// A figure as people read it: three digits that count, thousands apart.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        let digits = format!("{:.0}", size);
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                text.push('\u{202f}');
            }
            text.push(digit);
        }
        return if value < 0.0 {
            format!("-{text}")
        } else {
            text
        };
    }
    match size {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The middle one.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    match sorted.len() % 2 {
        0 => {
            let lower = sorted.len().checked_sub(2).map(|_| sorted.len() / 2 - 1);
            let lower = lower.and_then(|index| sorted.get(index)).copied();
            (lower.unwrap_or(upper) + upper) / 2.0
        }
        _ => upper,
    }
}

/// The lowest and the highest.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (low, high)
}

/// Median with its range.
fn cell(values: &[f64]) -> String {
    let (low, high) = range(values);
    match values.len() {
        0 => "–".to_owned(),
        1 => number(median(values)),
        _ => format!(
            "{} ({}–{})",
            number(median(values)),
            number(low),
            number(high)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [1234567.8, 1000.0, 999.4, 31.04, 0.163, -2048.0].map(number);
        let thin = |text: &str| text.replace(' ', "\u{202f}");
        assert_eq!(
            texts,
            [
                thin("1 234 568"),
                thin("1 000"),
                "999".into(),
                "31.0".into(),
                "0.16".into(),
                thin("-2 048"),
            ]
        );
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
        assert_eq!(range(&[3.0, 1.0, 2.0]), (1.0, 3.0));
    }
}
