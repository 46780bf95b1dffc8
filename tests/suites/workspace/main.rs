//! What the workspace promises about itself: which crate may know which, and
//! that no file tells about the machine that it was written on.

#![forbid(unsafe_code)]

mod facts;
mod layout;
mod links;
mod security_properties;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

/// What cargo knows about the workspace.
fn metadata(flags: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(flags)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Direct dependencies of each crate of the workspace: of its product, not of
/// its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("a name").to_owned();
            let direct = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
                .collect();
            (name, direct)
        })
        .collect()
}

#[test]
fn crates_depend_in_one_direction() {
    let ours = dependencies();
    let known: BTreeSet<&str> = ours.keys().map(String::as_str).collect();
    // What each may use of ours. A crate that is not here is a new decision.
    let may: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("odyn-yaml", &[][..]),
        ("odyn-settings", &["odyn-yaml"]),
        ("odyn-policy", &["odyn-yaml", "odyn-proto"]),
        // An oracle for tests and fuzz targets: no product crate may use it.
        ("odyn-policy-reference", &["odyn-policy", "odyn-proto"]),
        ("odyn-ingress-tls", &["odyn-policy"]),
        ("odyn-proto", &[]),
        ("odyn-udp-batch", &[]),
        ("odyn-http-serve", &[]),
        ("odyn-process", &[]),
        (
            "policyctl",
            &["odyn-policy", "odyn-proto", "odyn-ingress-tls", "odyn-kms"],
        ),
        ("odyn-kms", &["odyn-proto", "odyn-http-serve"]),
        ("odyn-link", &["odyn-proto", "odyn-udp-batch"]),
        ("odyn-dns", &["odyn-proto", "odyn-udp-batch"]),
        (
            "enclaver-outer",
            &[
                "odyn-http-serve",
                "odyn-process",
                "odyn-link",
                "odyn-proto",
                "odyn-settings",
            ],
        ),
        (
            "odyn-net",
            &[
                "odyn-policy",
                "odyn-ingress-tls",
                "odyn-proto",
                "odyn-dns",
                "odyn-kms",
                "odyn-udp-batch",
                "odyn-http-serve",
                "odyn-process",
                "odyn-link",
                "odyn-settings",
            ],
        ),
        (
            "enclaver",
            &[
                "odyn-policy",
                "odyn-proto",
                "odyn-dns",
                "odyn-link",
                "odyn-process",
                "odyn-settings",
                "odyn-net",
                "enclaver-outer",
            ],
        ),
        // The stand-in for KMS verifies documents and seals envelopes.
        ("odyn-tests", &["odyn-kms", "odyn-proto"]),
        (
            "odyn-benches",
            &[
                "odyn-policy",
                "odyn-dns",
                "odyn-link",
                "odyn-proto",
                "odyn-tests",
            ],
        ),
    ]);
    for (name, direct) in &ours {
        let allowed = may
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} has no place in the order of crates"));
        for dependency in direct.iter().filter(|name| known.contains(name.as_str())) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

/// Names of all packages that a package of the workspace is built from, without its tests.
fn closure(package: &str) -> BTreeSet<String> {
    // Packages for other systems need not be on this machine.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = metadata(&["--filter-platform", &platform]);
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let names: BTreeMap<String, String> = array(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let nodes: BTreeMap<String, Value> = array(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let mut next: Vec<String> = names
        .iter()
        .filter(|(_, name)| *name == package)
        .map(|(id, _)| id.clone())
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = next.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for dependency in array(&nodes[&id]["deps"]) {
            let kinds = array(&dependency["dep_kinds"]);
            if kinds
                .iter()
                .any(|kind| kind["kind"].as_str() != Some("dev"))
            {
                next.push(text(&dependency["pkg"]));
            }
        }
    }
    seen.iter().map(|id| names[id].clone()).collect()
}

/// What is attested must not contain the host, nor a client of AWS.
#[test]
fn the_guest_does_not_contain_the_host() {
    let guest = closure("odyn-net");
    assert!(guest.contains("odyn-link"), "{guest:?}");
    let wrong: Vec<&String> = guest
        .iter()
        .filter(|name| {
            ["enclaver-outer", "enclaver"].contains(&name.as_str())
                || name.starts_with("aws-config")
                || name.starts_with("aws-sdk-")
        })
        .collect();
    assert!(wrong.is_empty(), "odyn-net contains {wrong:?}");
    assert!(closure("enclaver").contains("enclaver-outer"));
}

#[test]
fn the_policy_has_no_input_output_and_no_clock() {
    let ours = dependencies();
    for banned in [
        "tokio",
        "h2",
        "hickory-proto",
        "hickory-resolver",
        "nix",
        "socket2",
        "mio",
    ] {
        assert!(
            !ours["odyn-policy"].contains(banned),
            "odyn-policy must not use {banned}"
        );
    }
}

#[test]
fn libnftnl_is_in_the_guest_half_only() {
    for (name, direct) in dependencies() {
        let copyleft = direct
            .iter()
            .any(|dependency| dependency.starts_with("nftnl"));
        assert!(!copyleft || name == "odyn-net", "{name} must not use nftnl");
    }
}

/// Files under version control, and those that would be.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
        ])
        .arg("--exclude-standard")
        .current_dir(root())
        .output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(|name| root().join(name))
            .collect(),
        // An unpacked archive: no history, so no list.
        _ => Vec::new(),
    }
}

/// The Rust files of this file or folder, with what is in them.
fn sources_below(path: &Path) -> Vec<(PathBuf, String)> {
    let rust = files()
        .into_iter()
        .filter(|file| file.starts_with(path) && file.extension().is_some_and(|e| e == "rs"));
    rust.filter_map(|file| fs::read_to_string(&file).ok().map(|text| (file, text)))
        .collect()
}

/// Words that tell where this was written: the checkout, the home directory
/// when it is a person's, and the hosts that cargo fetches from here.
fn machine_words() -> Vec<String> {
    let mut words = vec![root().display().to_string()];
    if let Some(home) = std::env::home_dir() {
        if home.starts_with("/home") {
            words.push(home.display().to_string());
        }
        for file in ["config.toml", "config"] {
            let config = fs::read_to_string(home.join(".cargo").join(file)).unwrap_or_default();
            words.extend(hosts(&config));
        }
    }
    // The public registry stands in every lock file; put together here, so that this file does
    // not name it either.
    let registry = ["crates", "io"].join(".");
    let public = ["github.com", "localhost", "127.0.0.1"];
    words.retain(|word| {
        word.len() > 5 && !word.ends_with(&registry) && !public.contains(&word.as_str())
    });
    words
}

/// The hosts of the URLs in a text.
fn hosts(text: &str) -> Vec<String> {
    text.split("://")
        .skip(1)
        .filter_map(|rest| rest.split(['/', '"', '\'', ':', ' ', '\n']).next())
        .map(|host| host.rsplit('@').next().unwrap_or(host).to_owned())
        .filter(|host| !host.is_empty())
        .collect()
}

#[test]
fn no_file_tells_about_the_machine_it_was_written_on() {
    let words = machine_words();
    for file in files() {
        let Ok(bytes) = fs::read(&file) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        for word in &words {
            assert!(!text.contains(word), "{} contains {word}", file.display());
        }
    }
}

/// npm writes the host that a package came from into a lock file, unless told not to.
#[test]
fn the_lock_file_of_npm_names_no_host() {
    let file = root().join("tests/third_party/package-lock.json");
    let lock: Value = serde_json::from_slice(&fs::read(file).expect("the file")).expect("JSON");
    let packages = lock["packages"].as_object().expect("packages");
    for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
        assert!(package.get("resolved").is_none(), "{name} has a host");
        assert!(package["integrity"].is_string(), "{name} has no digest");
    }
}

#[test]
fn every_crate_forbids_or_justifies_unsafe_code() {
    for file in files() {
        let is_root = ["lib.rs", "main.rs"]
            .iter()
            .any(|name| file.ends_with(format!("src/{name}")));
        if !is_root || file.starts_with(root().join("fuzz")) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let says =
            text.contains("#![forbid(unsafe_code)]") || text.contains("#![deny(unsafe_code)]");
        assert!(says, "{} says nothing about unsafe code", file.display());
    }
}

#[test]
fn hosts_are_found_in_a_configuration() {
    let text = "registry = \"sparse+https://user@mirror.example:8080/x/\"\nurl='http://b.example'";
    assert_eq!(hosts(text), ["mirror.example", "b.example"]);
}

#[test]
fn the_instance_template_is_the_service_but_for_its_names() {
    let unit = |name: &str| {
        let text = fs::read_to_string(root().join("systemd").join(name)).expect("a unit");
        let lines = text.lines().filter(|line| !line.starts_with(['#', ' ']));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let as_service = |line: &String| {
        line.replace("guests of %i", "guests of this machine")
            .replace(" --config /etc/enclaver-outer/%i.yaml", "")
            .replace("User=outer-%i", "User=enclaver-outer")
            .replace("@%i", "")
    };
    let template = unit("enclaver-outer@.service");
    assert!(template.iter().any(|line| line.contains("%i")));
    let template: Vec<String> = template.iter().map(as_service).collect();
    assert_eq!(template, unit("enclaver-outer.service"));
}

#[test]
fn the_socket_template_is_the_socket_but_for_its_names() {
    let unit = |name: &str| {
        let text = fs::read_to_string(root().join("systemd").join(name)).expect("a unit");
        let lines = text.lines().skip_while(|line| !line.starts_with("[Unit]"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let template = unit("enclaver-outer@.socket").replace("of %i", "of this machine");
    assert_eq!(template, unit("enclaver-outer.socket"));
}
