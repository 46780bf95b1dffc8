//! Facts that documents state, held against the code: files with unsafe code, exit codes, environment variables,
//! the number of connections.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::{root, sources_below};

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What follows this line of a document, up to the next heading.
fn below<'a>(text: &'a str, line: &str) -> &'a str {
    let (_, rest) = text
        .split_once(&format!("\n{line}\n"))
        .unwrap_or_else(|| panic!("no line {line:?}"));
    rest.split("\n#").next().unwrap_or(rest)
}

/// The product's Rust files below a folder, by their path, without their unit tests.
fn product(folder: &str) -> BTreeMap<String, String> {
    let outside = [
        "tests", "fuzz", "benches", "examples", "tests.rs", "build.rs",
    ];
    let mut sources = BTreeMap::new();
    for (file, text) in sources_below(&root().join(folder)) {
        let path = file
            .strip_prefix(root())
            .expect("a file of ours")
            .to_owned();
        if path.iter().any(|part| outside.iter().any(|o| part == *o)) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests").next();
        sources.insert(
            path.display().to_string(),
            code.unwrap_or_default().to_owned(),
        );
    }
    sources
}

/// A line of code without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

#[test]
fn the_files_with_unsafe_code_are_those_of_the_document() {
    let marks = [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe extern",
        "unsafe trait",
    ];
    let found: BTreeSet<String> = product("")
        .into_iter()
        .filter(|(_, text)| {
            let mut lines = text.lines().map(code);
            lines.any(|line| marks.iter().any(|mark| line.contains(mark)))
        })
        .map(|(path, _)| path)
        .collect();
    let properties = document("docs/security-properties.md");
    let (_, list) = properties
        .split_once("`unsafe` code is in these files only")
        .expect("the list");
    let listed: BTreeSet<String> = list
        .split("\n\n")
        .nth(1)
        .expect("a list")
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split('`').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(found, listed, "docs/security-properties.md, section 8");
    // CONTRIBUTING leads there and has no list of its own.
    let contributing = document("CONTRIBUTING.md");
    assert!(contributing.contains("docs/security-properties.md#8-"));
    for path in &found {
        assert!(!contributing.contains(path), "a second list: {path}");
    }
}

/// The codes in the first column of a table.
fn codes(table: &str) -> BTreeSet<u8> {
    table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect()
}

/// The numbers that stand behind each of these marks in the sources that contain `part`.
fn numbers(folder: &str, part: &str, mark: &str) -> BTreeSet<u8> {
    let sources = product(folder);
    let texts = sources.values().filter(|text| text.contains(part));
    texts
        .flat_map(|text| text.split(mark).skip(1))
        .filter_map(|rest| {
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        })
        .collect()
}

#[test]
fn the_exit_codes_are_those_of_the_documents() {
    let operations = document("docs/operations.md");
    let (_, operations) = operations
        .split_once("\n## Exit codes\n")
        .expect("the section");
    let mut host = numbers("outer", "struct Sysexit(u8)", "Sysexit(");
    host.insert(0);
    let listed = codes(below(operations, "### `enclaver-outer`"));
    assert_eq!(listed, host, "docs/operations.md, enclaver-outer");

    // What the doctor judges: a file that it cannot read, or that is none. The others are those of a run.
    let guest = numbers("inner", "pub enum Failure", "=> ");
    let run = codes(below(operations, "### `odyn-net run`, `enclaver simulate`"));
    let doctor = codes(&document("docs/doctor.md"));
    let all: BTreeSet<u8> = run.union(&doctor).copied().collect();
    let known: BTreeSet<u8> = guest.iter().copied().chain([0, 1]).collect();
    assert_eq!(all, known, "docs/operations.md and docs/doctor.md");
}

/// Whether a text is the name of a variable that our executables may read or set.
fn is_variable(word: &str) -> bool {
    let prefixes = [
        "ODYN_",
        "OUTER_",
        "ENCLAVER_",
        "AWS_",
        "LISTEN_",
        "NOTIFY_",
        "WATCHDOG_",
        "JOURNAL_",
    ];
    let name = word
        .chars()
        .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    name && prefixes
        .iter()
        .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
}

#[test]
fn the_environment_variables_are_in_the_documents() {
    let documents: String = sources_of_documents();
    let operations = document("docs/operations.md");
    let mut missing = BTreeSet::new();
    let mut count = 0;
    for (path, text) in product("") {
        let lines = text.lines().map(code);
        for word in lines.flat_map(|line| line.split('"').skip(1).step_by(2)) {
            if !is_variable(word) {
                continue;
            }
            count += 1;
            // "Each environment variable is OUTER_ and the key in capitals."
            let key = word.split_once('_').map(|(_, key)| key.to_lowercase());
            let row = key.is_some_and(|key| operations.contains(&format!("| `{key}` |")));
            let setting = row && (word.starts_with("ODYN_") || word.starts_with("OUTER_"));
            if !setting && !documents.contains(word) {
                missing.insert(format!("{word} ({path})"));
            }
        }
    }
    assert!(missing.is_empty(), "in no document: {missing:#?}");
    assert!(count > 40, "only {count} variables");
}

/// All documents of the product in one text.
fn sources_of_documents() -> String {
    let folder = fs::read_dir(root().join("docs")).expect("the documents");
    let named = folder
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let more = ["README.md", "policy/README.md", "benches/README.md"].map(|name| root().join(name));
    named
        .chain(more)
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect()
}

#[test]
fn the_number_of_connections_is_that_of_the_document() {
    let sources = product("link");
    let line = sources
        .values()
        .flat_map(|text| text.lines())
        .find(|line| line.contains("(processors() + ") && line.contains(".clamp("))
        .expect("the number of connections");
    let numbers: Vec<&str> = line
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .collect();
    let [more, least, most] = numbers[..] else {
        panic!("{line}")
    };
    let wanted = format!("*p* + {more}, at least {least} and at most {most}");
    let architecture = document("docs/architecture.md");
    assert!(architecture.contains(&wanted), "no {wanted:?}");
}

#[test]
fn a_drain_is_followed_in_at_most_twelve_files_which_all_take_part_in_it() {
    let shutdown = document("docs/shutdown.md");
    let table = below(&shutdown, "## Where it is in the code");
    let files: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!((1..=12).contains(&files.len()), "{files:#?}");
    for file in files {
        assert!(document(file).contains("drain"), "{file}");
    }
}
