//! Targets of speed and size, and whether a run reaches them.

use super::number;
use super::results::{Results, Row};
use crate::contenders::Family;

/// Bulk is compared with the best of these.
const BULK: &[&str] = &[
    "haproxy-splice-always",
    "haproxy-splice",
    "haproxy",
    "nginx",
];
const NGINX: &[&str] = &["nginx"];

/// The bound of a figure.
enum Rule {
    /// So many times the best of these, or more; less is better: or less.
    Of(f64, &'static [&'static str]),
    /// So many times the CPU of the pair that was best in this row of throughput, or less.
    CpuOf(f64, &'static str),
    /// This much.
    Value(f64),
}

/// The targets: number, figure, and what it must be.
const TARGETS: &[(u8, &str, Rule)] = &[
    (1, "up-1", Rule::Of(1.3, BULK)),
    (1, "down-1", Rule::Of(1.3, BULK)),
    (1, "up-16", Rule::Of(1.1, BULK)),
    (1, "down-16", Rule::Of(1.1, BULK)),
    (1, "cpu-up-1", Rule::CpuOf(0.7, "up-1")),
    (1, "cpu-down-1", Rule::CpuOf(0.7, "down-1")),
    (1, "cpu-up-16", Rule::CpuOf(0.7, "up-16")),
    (1, "cpu-down-16", Rule::CpuOf(0.7, "down-16")),
    (2, "short", Rule::Of(1.0, NGINX)),
    (2, "idle-p50", Rule::Of(1.0, NGINX)),
    (3, "beside-p50", Rule::Of(1.0, NGINX)),
    (3, "beside-p99", Rule::Of(1.0, NGINX)),
    (4, "wrk", Rule::Of(0.9, NGINX)),
    (4, "h2load", Rule::Of(0.9, NGINX)),
    (5, "idle-5000-guest", Rule::Value(12.0)),
    (5, "idle-5000-host", Rule::Value(12.0)),
    (5, "idle-20000-guest", Rule::Value(12.0)),
    (5, "idle-20000-host", Rule::Value(12.0)),
    // Pages that a heap keeps come and go: a leak of ten bytes each would show.
    (5, "churn-guest", Rule::Value(1024.0)),
    (5, "churn-host", Rule::Value(1024.0)),
    (6, "udp-one-way", Rule::Value(100_000.0)),
    (6, "udp-echo", Rule::Value(100_000.0)),
    (6, "dns", Rule::Value(100_000.0)),
];

/// Figures in which target 7 compares with networks in user space.
const AHEAD: [&str; 7] = [
    "bulk",
    "cpu",
    "connections",
    "latency",
    "http",
    "udp",
    "memory",
];

/// A table for each variant of ours.
pub(super) fn verdicts(results: &Results) -> String {
    let mut text = String::new();
    for ours in results.of(Family::Ours) {
        let lines: Vec<String> = TARGETS
            .iter()
            .filter_map(|(number, id, rule)| {
                let row = results.row(id)?;
                let have = row.median(ours)?;
                let (limit, of) = limit(results, row, rule)?;
                Some(line(*number, row, have, limit, &of))
            })
            .chain(ahead(results, ours))
            .collect();
        if !lines.is_empty() {
            text.push_str(&format!(
                "\n### Targets, {ours}\n\n| target | figure | {ours} | must be | ratio | |\n\
                 |---|---|---|---|---|---|\n{}",
                lines.concat()
            ));
        }
    }
    text
}

/// The figure that must be reached, and what it comes from.
fn limit(results: &Results, row: &Row, rule: &Rule) -> Option<(f64, String)> {
    match rule {
        Rule::Value(value) => Some((*value, String::new())),
        Rule::Of(factor, peers) => {
            let (peer, value) = best(row, peers)?;
            Some((
                value * factor,
                format!("{factor} × {peer}'s {}", number(value)),
            ))
        }
        Rule::CpuOf(factor, throughput) => {
            let (peer, _) = best(results.row(throughput)?, BULK)?;
            let value = row.median(peer)?;
            Some((
                value * factor,
                format!("{factor} × {peer}'s {}", number(value)),
            ))
        }
    }
}

fn best<'a>(row: &Row, peers: &[&'a str]) -> Option<(&'a str, f64)> {
    let all = peers
        .iter()
        .filter_map(|peer| Some((*peer, row.median(peer)?)));
    match row.figure.more_is_better {
        true => all.max_by(|a, b| a.1.total_cmp(&b.1)),
        false => all.min_by(|a, b| a.1.total_cmp(&b.1)),
    }
}

fn line(target: u8, row: &Row, have: f64, limit: f64, of: &str) -> String {
    let more = row.figure.more_is_better;
    let (sign, met) = match more {
        true => ("≥", have >= limit),
        false => ("≤", have <= limit),
    };
    let of = match of {
        "" => String::new(),
        of => format!(" ({of})"),
    };
    format!(
        "| {target} | {}, {} | {} | {sign} {}{of} | {:.2} | {} |\n",
        row.figure.name,
        row.figure.unit,
        number(have),
        number(limit),
        have / limit,
        if met { "met" } else { "**missed**" }
    )
}

/// Target 7: ahead of every network in user space in every row that both have.
fn ahead(results: &Results, ours: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for peer in results.of(Family::UserMode) {
        for row in &results.rows {
            let compared =
                AHEAD.contains(&&*row.figure.group) && !row.figure.id.starts_with("rest");
            if let (true, Some(have), Some(value)) = (compared, row.median(ours), row.median(peer))
            {
                lines.push(line(7, row, have, value, &format!("{peer}'s")));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::Figure;

    fn row(id: &str, more: bool, samples: &[(&str, f64)]) -> Row {
        let mut row = Row::new(Figure {
            id: id.into(),
            group: "bulk".into(),
            name: id.into(),
            unit: "u".into(),
            more_is_better: more,
        });
        for (name, value) in samples {
            row.samples.insert((*name).into(), vec![*value]);
        }
        row
    }

    #[test]
    fn cpu_is_compared_with_the_pair_that_was_fastest() {
        let results = Results {
            contenders: [("odyn-net".to_owned(), Family::Ours)].into(),
            order: vec!["odyn-net".into()],
            rows: vec![
                row(
                    "up-1",
                    true,
                    &[
                        ("odyn-net", 30.0),
                        ("haproxy-splice", 20.0),
                        ("nginx", 10.0),
                    ],
                ),
                row(
                    "cpu-up-1",
                    false,
                    &[("odyn-net", 0.2), ("haproxy-splice", 0.3), ("nginx", 0.1)],
                ),
            ],
            ..Results::default()
        };
        let text = verdicts(&results);
        assert!(
            text.contains("≥ 26.0 (1.3 × haproxy-splice's 20.0) | 1.15 | met"),
            "{text}"
        );
        assert!(
            text.contains("≤ 0.21 (0.7 × haproxy-splice's 0.30) | 0.95 | met"),
            "{text}"
        );
    }

    #[test]
    fn less_is_better_where_it_says_so() {
        let row = row("idle-p50", false, &[("nginx", 50.0)]);
        assert!(line(2, &row, 60.0, 50.0, "").contains("**missed**"));
        assert!(line(2, &row, 40.0, 50.0, "").contains("| met |"));
    }
}
