//! Modules of a crate import downwards only.
//!
//! Each crate has a list of its modules, the lowest first. What is not a test may import from its
//! own module and from those before it. The crate's root (`lib.rs`, `main.rs`) may import all.

use std::fs;
use std::path::{Path, PathBuf};

use super::root;

/// The folders of sources whose modules have an order, and the order: lowest first.
const SOURCES: &[(&str, &[&str])] = &[
    (
        "link/src",
        &[
            "sync",
            "runtime",
            "error",
            "config",
            "sockets",
            "transport",
            "http2",
            "drain",
            "flow",
            "pool",
            "feed",
            "guest",
            "host",
        ],
    ),
    (
        "outer/src",
        &[
            "rules",
            "dial",
            "resolver",
            "logs",
            "guests",
            "connected_guests",
            "runtime_config",
            "kms",
            "ingress",
            "handler",
            "server",
        ],
    ),
    (
        "outer/src/bin/enclaver-outer",
        &[
            "cli",
            "admin",
            "exit",
            "logging",
            "notify",
            "aws_chain",
            "settings",
            "status_line",
            "reload",
            "daemon",
        ],
    ),
    (
        "inner/src",
        &[
            "exit",
            "policy_file",
            "guest_id",
            "audit",
            "capture",
            "egress",
            "ingress",
            "kms",
            "attestation",
            "api",
            "init",
            "supervisor",
            "telemetry",
            "services",
            "shutdown",
            "cli",
            "start_error",
            "settings",
            "run",
        ],
    ),
];

#[test]
fn modules_import_downwards_only() {
    let mut broken = Vec::new();
    for (folder, order) in SOURCES {
        let source = root().join(folder);
        for file in sources(&source) {
            broken.extend(upward_imports(&source, &file, order));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The crate's Rust files that are compiled into the product.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        if path.is_dir() && name != "tests" && name != "bin" {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
    found
}

/// One line for each import of `file` that does not go downwards.
fn upward_imports(source: &Path, file: &Path, order: &[&str]) -> Vec<String> {
    let module = module_of(file.strip_prefix(source).expect("in the crate"));
    let Some(own) = module.first() else {
        return Vec::new();
    };
    let place = |name: &str| order.iter().position(|known| *known == name);
    let shown = file
        .strip_prefix(root())
        .expect("in the workspace")
        .display();
    let Some(own_place) = place(own) else {
        return vec![format!(
            "{shown}: `{own}` has no place in the order of modules"
        )];
    };
    let text = fs::read_to_string(file).expect("a file");
    let mut broken = Vec::new();
    for (line, target) in imports(&product(&text), &module) {
        match place(&target) {
            Some(there) if there <= own_place => {}
            Some(_) => broken.push(format!("{shown}:{line}: {own} -> {target} goes upwards")),
            None => broken.push(format!(
                "{shown}:{line}: {own} -> crate::{target}: not a module of the order; import it \
                 from where it is defined"
            )),
        }
    }
    broken
}

/// The path of the module that a file holds; none for the crate's root.
fn module_of(file: &Path) -> Vec<String> {
    let mut path: Vec<String> = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if matches!(path.last().map(String::as_str), Some("mod")) {
        path.pop();
    }
    if path.len() == 1 && matches!(path[0].as_str(), "lib" | "main") {
        path.pop();
    }
    path
}

/// The text up to the tests, with comments and strings blanked; lines stay where they are.
fn product(text: &str) -> String {
    let text = text
        .split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or(line);
        let mut is_string = false;
        for letter in code.chars() {
            if letter == '"' {
                is_string = !is_string;
            }
            out.push(if is_string { ' ' } else { letter });
        }
        out.push('\n');
    }
    out
}

/// Each top module that the code names by `crate::` or `super::`, with its line.
fn imports(code: &str, module: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let line = 1 + code[..start].matches('\n').count();
        let names = first_names(&code[start + "crate::".len()..]);
        found.extend(names.into_iter().map(|name| (line, name)));
    }
    for (start, _) in code.match_indices("super::") {
        if code[..start].ends_with("super::") {
            continue;
        }
        let line = 1 + code[..start].matches('\n').count();
        let mut rest = &code[start..];
        let mut up = 0;
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, up) = (next, up + 1);
        }
        // Out of the module's own folder, so from the crate's root on.
        if up >= module.len() {
            let names = first_names(rest);
            found.extend(names.into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// The first names of a path or of the paths in braces.
fn first_names(path: &str) -> Vec<String> {
    let Some(tree) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let (mut depth, mut names, mut at_start) = (0, Vec::new(), true);
    for (index, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            letter if at_start && depth == 0 && !letter.is_whitespace() => {
                names.push(name(&tree[index..]));
                at_start = false;
            }
            _ => {}
        }
    }
    names
}

fn name(path: &str) -> String {
    path.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

#[test]
fn imports_are_found_in_every_spelling() {
    let code = "use crate::pool::{Pool, state};\n\
                use crate::{flow, http2::chunk::Chunk};\n\
                fn f() { crate::guest::f(); }\n\
                use super::super::host::serve;\n\
                use super::own;\n";
    let module = ["flow".to_owned(), "tcp".to_owned()];
    let found = imports(&product(code), &module);
    let found: Vec<_> = found
        .iter()
        .map(|(line, name)| (*line, name.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (1, "pool"),
            (2, "flow"),
            (2, "http2"),
            (3, "guest"),
            (4, "host")
        ]
    );
    assert!(!product("a \"crate::x\" // crate::y").contains("crate"));
}
