//! tests/README.md lists the variables that tests read, all of them and no others.

use std::collections::BTreeSet;
use std::fs;

use crate::{files, root};

/// The names that the variables of the tests begin with; `executable` reads the others.
const PREFIXES: [&str; 2] = ["ODYN_TEST_", "ODYN_REQUIRE_"];

/// The variables that tests, benches and scripts read or set.
fn used() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files() {
        let is_source = file.extension().is_none_or(|extension| extension == "rs");
        let Some(text) = fs::read_to_string(&file).ok().filter(|_| is_source) else {
            continue;
        };
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.extend(
            words
                .filter(|word| {
                    let rest = PREFIXES.iter().find_map(|prefix| word.strip_prefix(prefix));
                    rest.is_some_and(|rest| !rest.is_empty())
                })
                .map(str::to_owned),
        );
        let executables = text.split("executable(\"").skip(1);
        names.extend(executables.filter_map(|rest| rest.split('"').next().map(str::to_owned)));
    }
    names
}

#[test]
fn the_readme_lists_every_variable_that_tests_read_and_no_other() {
    let readme = fs::read_to_string(root().join("tests/README.md")).expect("the document");
    let listed: BTreeSet<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, used());
}
