//! Links and paths in documents lead to what exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{files, root};

/// Documents that tell of the past, and name files as they were.
const OF_THE_PAST: [&str; 2] = ["CHANGELOG.md", "docs/notes/performance-history.md"];

/// Paths of other projects that look like ours.
const OF_OTHERS: [&str; 1] = ["scripts/kconfig/merge_config.sh"];

/// The Markdown files, with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let markdown = files()
        .into_iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    markdown
        .filter_map(|file| fs::read_to_string(&file).ok().map(|text| (file, text)))
        .collect()
}

/// The lines of a text that are prose: not those of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !fence && !code
    })
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let Some(heading) = line.trim_start_matches('#').strip_prefix(' ') else {
            continue;
        };
        if !line.starts_with('#') {
            continue;
        }
        let anchor: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let repeated = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone())
            .chain(repeated)
            .find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// The targets of a text's links: `[words](target)`.
fn targets(text: &str) -> Vec<String> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split(' ').next().unwrap_or(target).to_owned())
        .collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        let folder = file.parent().expect("a folder");
        for target in targets(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let to = if path.is_empty() {
                file.clone()
            } else {
                folder.join(path)
            };
            let mut good = to.exists();
            if good && !anchor.is_empty() && to.extension().is_some_and(|e| e == "md") {
                good = anchors(&fs::read_to_string(&to).expect("it exists")).contains(anchor);
            }
            if !good {
                wrong.push(format!("{}: {target}", shown(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere: {wrong:#?}");
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root())
        .unwrap_or(file)
        .display()
        .to_string()
}

/// The texts of a word with braces: `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn expanded(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else {
        return vec![word.to_owned()];
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return vec![word.to_owned()];
    };
    inside
        .split(',')
        .flat_map(|part| expanded(&format!("{before}{part}{after}")))
        .collect()
}

/// Whether this word in backticks is a path of the repository: below one of its folders, or a Rust file.
fn is_path(word: &str, folders: &BTreeSet<String>) -> bool {
    let plain = !word.contains(|c: char| c.is_whitespace() || "<>$=()\"'|:".contains(c));
    let below = word
        .split_once('/')
        .is_some_and(|(first, _)| folders.contains(first));
    plain && (below || word.ends_with(".rs"))
}

/// Whether a path exists: from the root, from the document, from the `src` of its crate, or (a file's name alone) anywhere.
fn exists(path: &str, document: &Path, all: &[PathBuf]) -> bool {
    let path = path.split('*').next().unwrap_or(path).trim_end_matches('/');
    let folder = document.parent().expect("a folder");
    let places = [root(), folder.to_owned(), folder.join("src")];
    places.iter().any(|place| place.join(path).exists())
        || !path.contains('/') && all.iter().any(|file| file.ends_with(path))
}

#[test]
fn every_path_in_a_document_exists() {
    let all = files();
    // Folders that scripts make are no folders of the repository.
    let folders: BTreeSet<String> = all
        .iter()
        .filter_map(|file| file.strip_prefix(root()).ok()?.parent()?.iter().next())
        .map(|first| first.to_string_lossy().into_owned())
        .collect();
    let mut wrong = Vec::new();
    for (file, text) in documents() {
        if OF_THE_PAST.contains(&shown(&file).as_str()) {
            continue;
        }
        let text: String = prose(&text).map(|line| format!("{line}\n")).collect();
        let words = text.split('`').skip(1).step_by(2);
        for word in words.filter(|word| is_path(word, &folders) && !OF_OTHERS.contains(word)) {
            let missing = expanded(word)
                .into_iter()
                .filter(|path| !exists(path, &file, &all));
            wrong.extend(missing.map(|path| format!("{}: {path}", shown(&file))));
        }
    }
    assert!(wrong.is_empty(), "paths that do not exist: {wrong:#?}");
}

#[test]
fn headings_become_anchors_as_on_github() {
    let text = "# A B\n## `odyn-net run`, and: more\n## A B\n```\n# no heading\n```\n";
    let found: Vec<String> = anchors(text).into_iter().collect();
    assert_eq!(found, ["a-b", "a-b-1", "odyn-net-run-and-more"]);
}

#[test]
fn braces_are_several_paths() {
    assert_eq!(expanded("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
    assert_eq!(expanded("a.rs"), ["a.rs"]);
}
