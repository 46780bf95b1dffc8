//! docs/security-properties.md names tests, files and fuzz targets that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{root, sources_below};

/// The names of the tests in a file: the function below each `#[test]` or `#[tokio::test]`.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            names.extend(rest.split(['(', '<']).next());
            is_test = false;
        }
    }
    names
}

/// Whether this is the file of a module with that path, seen from the folder of its crate or suites.
fn is_module(file: &Path, path: &str) -> bool {
    let path = path.replace("::", "/");
    [".rs", "/mod.rs", "/main.rs"]
        .iter()
        .any(|end| file.ends_with(format!("{path}{end}")))
}

/// What is wrong with the document's names of tests, files and fuzz targets.
fn wrong_names(text: &str) -> (usize, Vec<String>) {
    let all = sources_below(&root());
    let (mut named, mut wrong) = (0, Vec::new());
    for item in text.split("\n- ").flat_map(|item| item.split("\n\n")) {
        // What a name in this item belongs to, unless it says so itself.
        let mut scope = root();
        let mut before = "";
        for (at, word) in item.split('`').enumerate() {
            if at % 2 == 0 {
                before = word;
                continue;
            }
            let path = root().join(word.trim_end_matches(['*', '/']));
            if let Some((module, function)) = word.rsplit_once("::") {
                named += 1;
                let mut of_module = all.iter().filter(|(file, _)| is_module(file, module));
                let exists = of_module.any(|(_, source)| {
                    let tests = tests_in(source);
                    tests.contains(function) || function == "*" && !tests.is_empty()
                });
                wrong.extend((!exists).then(|| word.to_owned()));
            } else if word.contains('/') && !word.contains([' ', ':']) && !word.starts_with('/') {
                wrong.extend((!path.exists()).then(|| word.to_owned()));
                scope = path;
            } else if word.matches('_').count() >= 3 && word.to_lowercase() == word {
                named += 1;
                let mut below = all.iter().filter(|(file, _)| file.starts_with(&scope));
                let exists = below.any(|(_, source)| tests_in(source).contains(word));
                wrong.extend((!exists).then(|| format!("{word} in {}", scope.display())));
            } else if before.contains("fuzz target") {
                let target = root().join("fuzz/fuzz_targets").join(word);
                wrong.extend((!target.with_extension("rs").exists()).then(|| word.to_owned()));
            }
        }
    }
    (named, wrong)
}

#[test]
fn every_security_property_names_tests_that_exist() {
    let properties = root().join("docs/security-properties.md");
    let (named, wrong) = wrong_names(&fs::read_to_string(properties).expect("the document"));
    assert!(wrong.is_empty(), "docs/security-properties.md: {wrong:#?}");
    assert!(named > 150, "only {named} tests are named");
}
