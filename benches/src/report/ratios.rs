//! Everybody beside one of them: what is left to compare where figures themselves mean nothing.

use super::cell;
use super::results::{Results, Row};

/// Each figure as a multiple of what `peer` had in the same round: the median, with its range.
pub(super) fn table(results: &Results, peer: &str) -> String {
    let names: Vec<&str> = results
        .order
        .iter()
        .map(String::as_str)
        .filter(|name| *name != peer)
        .collect();
    let mut text = format!("\n### As multiples of {peer}'s\n\n| |");
    for name in &names {
        text.push_str(&format!(" {name} |"));
    }
    text.push_str(&format!("\n|---|{}\n", "---|".repeat(names.len())));
    for row in &results.rows {
        let ratios = |name: &&str| ratios(row, name, peer);
        if names.iter().all(|name| ratios(name).is_empty()) {
            continue;
        }
        text.push_str(&format!("| {}, {} |", row.figure.name, row.figure.unit));
        for name in &names {
            text.push_str(&format!(" {} |", cell(&ratios(name))));
        }
        text.push('\n');
    }
    text
}

fn ratios(row: &Row, name: &str, peer: &str) -> Vec<f64> {
    let of = |name: &str| row.samples.get(name).map_or(&[][..], Vec::as_slice);
    let (own, peers) = (of(name), of(peer));
    match own.len() == peers.len() {
        true => own
            .iter()
            .zip(peers)
            .map(|(own, peer)| own / peer)
            .collect(),
        // A contender failed in a round, and the numbers do not say in which.
        false => row
            .median(name)
            .zip(row.median(peer))
            .map(|(own, peer)| own / peer)
            .into_iter()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loads::Figure;

    #[test]
    fn each_round_is_compared_by_itself() {
        let mut row = Row::new(Figure {
            id: "up-1".into(),
            group: "bulk".into(),
            name: "up".into(),
            unit: "u".into(),
            more_is_better: true,
        });
        for (name, samples) in [
            ("ours", vec![2.0, 40.0, 9.0]),
            ("nginx", vec![1.0, 10.0, 3.0]),
            ("socat", vec![1.0, 2.0]),
        ] {
            row.samples.insert(name.into(), samples);
        }
        assert_eq!(ratios(&row, "ours", "nginx"), [2.0, 4.0, 3.0]);
        assert_eq!(ratios(&row, "socat", "nginx"), [0.5]);
        assert!(ratios(&row, "absent", "nginx").is_empty());
        let results = Results {
            order: ["nginx", "ours"].map(String::from).into(),
            rows: vec![row],
            ..Results::default()
        };
        let text = table(&results, "nginx");
        assert!(text.contains("| up, u | 3.00 (2.00–4.00) |"), "{text}");
    }
}
