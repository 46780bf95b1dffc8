//! Tables in Markdown.

use super::results::{Results, Row};
use super::{GROUPS, cell};
use crate::contenders::Family;

/// Pairs of proxies first, then networks in user space; direct and ours stand in both.
pub(super) fn tables(results: &Results) -> String {
    let mut text = String::new();
    for (family, title) in [
        (Family::Pair, "Proxies over the same Unix link"),
        (Family::UserMode, "Networks in user space"),
    ] {
        if family == Family::UserMode && results.of(family).next().is_none() {
            continue;
        }
        text.push_str(&format!("\n### {title}\n"));
        for (group, title) in GROUPS {
            let rows = results.group(group);
            let names = names(results, family, &rows);
            if !names.is_empty() {
                text.push_str(&format!("\n**{title}**\n\n"));
                text.push_str(&table(&rows, &names));
            }
        }
    }
    text
}

/// The contenders that have a figure here, in the order of the run. The second table says nothing that the first
/// has said already: without a network in user space it is left out.
fn names<'a>(results: &'a Results, family: Family, rows: &[&Row]) -> Vec<&'a str> {
    let has = |name: &str| rows.iter().any(|row| row.samples.contains_key(name));
    if family == Family::UserMode && !results.of(family).any(has) {
        return Vec::new();
    }
    let names = results.order.iter().map(String::as_str);
    names
        .filter(|name| {
            let own = results.family(name);
            own == Some(family) || matches!(own, Some(Family::Direct | Family::Ours))
        })
        .filter(|name| has(name))
        .collect()
}

fn table(rows: &[&Row], names: &[&str]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| names.iter().any(|name| row.samples.contains_key(*name)))
        .collect();
    let mut text = String::from("|");
    for row in &rows {
        text.push_str(&format!(" | {}, {}", row.figure.name, row.figure.unit));
    }
    text.push_str(" |\n|---|");
    text.push_str(&"---|".repeat(rows.len()));
    text.push('\n');
    for name in names {
        text.push_str(&format!("| {name}"));
        for row in &rows {
            let samples = row.samples.get(*name).map_or(&[][..], Vec::as_slice);
            text.push_str(&format!(" | {}", cell(samples)));
        }
        text.push_str(" |\n");
    }
    text
}
