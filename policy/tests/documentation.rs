//! `docs/policy.md` against the parser, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use odyn_policy::{KEYS, Reason, Severity, codes, load};

const PAGE: &str = include_str!("../../docs/policy.md");

/// The cells of every table row of the page, without the header rows.
fn rows() -> Vec<Vec<String>> {
    let lines = PAGE.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// The text between the first two backticks.
fn code(cell: &str) -> &str {
    cell.split('`').nth(1).unwrap_or_default()
}

/// The example of each documented key.
fn documented() -> BTreeMap<String, String> {
    let keys = rows().into_iter().filter(|cells| cells.len() == 5);
    keys.map(|cells| (code(&cells[0]).to_owned(), code(&cells[3]).to_owned()))
        .collect()
}

fn known() -> BTreeSet<String> {
    let keys = KEYS.into_iter().flat_map(|mapping| {
        mapping.known.iter().map(|key| match mapping.path {
            "" => (*key).to_owned(),
            path => format!("{path}.{key}"),
        })
    });
    keys.collect()
}

/// A policy with one key, in a mapping or list for each part of its path.
fn policy_with(key: &str, value: &str) -> String {
    let mut text = value.to_owned();
    for part in key.split('.').rev() {
        text = match part.strip_suffix("[]") {
            Some(list) => format!("{{ {list}: [{text}] }}"),
            None => format!("{{ {part}: {text} }}"),
        };
    }
    text
}

#[test]
fn the_page_documents_the_keys_of_the_parser_and_no_others() {
    let documented: BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(documented, known());
}

#[test]
fn the_parser_accepts_each_documented_key_with_its_example() {
    for (key, example) in documented() {
        let text = policy_with(&key, &example);
        let loaded = load("example.yaml", &text);
        // A required key beside this one may be missing, the version for a start.
        let wrong: Vec<_> = loaded
            .errors()
            .filter(|d| d.code != "missing-key")
            .collect();
        assert!(wrong.is_empty(), "{text}: {wrong:?}");
    }
}

#[test]
fn the_parser_knows_the_keys_of_other_tools_that_the_page_names() {
    for mapping in KEYS {
        for key in mapping.foreign {
            let key = match mapping.path {
                "" => (*key).to_owned(),
                path => format!("{path}.{key}"),
            };
            assert!(PAGE.contains(&format!("`{key}`")), "{key}");
        }
    }
}

#[test]
fn every_example_of_the_page_loads_without_an_error() {
    let mut count = 0;
    for (i, block) in PAGE.split("```").enumerate() {
        let Some(text) = block.strip_prefix("yaml\n").filter(|_| i % 2 == 1) else {
            continue;
        };
        count += 1;
        let loaded = load("example.yaml", text);
        assert!(!loaded.has_errors(), "{text}: {:?}", loaded.diagnostics);
    }
    assert!(count >= 3, "{count} examples");
}

#[test]
fn the_page_lists_every_finding_with_its_severity() {
    let listed: BTreeSet<(String, String)> = rows()
        .into_iter()
        .filter(|cells| cells.len() == 3 && ["error", "warning", "note"].contains(&&*cells[1]))
        .map(|cells| (code(&cells[0]).to_owned(), cells[1].clone()))
        .collect();
    let severity = |severity| match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let ours = codes::ALL
        .iter()
        .map(|code| (code.id.to_owned(), severity(code.severity).to_owned()));
    assert_eq!(listed, ours.collect());
}

#[test]
fn the_page_lists_every_reason_of_a_denial() {
    let (_, table) = PAGE
        .split_once("## Reasons of a denial")
        .expect("the chapter");
    let lines = table.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<&str> = lines.map(code).collect();
    assert_eq!(listed, Reason::ALL.map(Reason::as_str).into());
}
