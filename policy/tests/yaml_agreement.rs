//! A second opinion on YAML: `serde_yaml` reads files as this crate does.

use std::collections::BTreeMap;

use odyn_policy::load;
use odyn_proto::KmsEndpoint;
use serde::Deserialize;

/// The parts of the format that Enclaver has, too, as its tools declare them.
#[derive(Debug, Deserialize)]
struct Manifest {
    version: String,
    name: String,
    ingress: Option<Vec<IngressSettings>>,
    egress: Option<Egress>,
    kms_proxy: Option<Service>,
    api: Option<Service>,
}

#[derive(Debug, Deserialize)]
struct IngressSettings {
    listen_port: u16,
}

#[derive(Debug, Default, Deserialize)]
struct Egress {
    allow: Option<Vec<serde_yaml::Value>>,
    deny: Option<Vec<serde_yaml::Value>>,
}

#[derive(Debug, Deserialize)]
struct Service {
    listen_port: u16,
    #[serde(default)]
    endpoints: BTreeMap<String, String>,
}

fn endpoints(texts: BTreeMap<String, String>) -> BTreeMap<String, KmsEndpoint> {
    let read = |(region, text): (String, String)| (region, KmsEndpoint::parse(&text).unwrap());
    texts.into_iter().map(read).collect()
}

#[test]
fn both_parsers_read_the_same() {
    for text in [
        include_str!("policies/full.yaml"),
        include_str!("policies/enclaver-vault.yaml"),
        include_str!("policies/enclaver-minimal.yaml"),
        include_str!("policies/enclaver-spiffe-client.yaml"),
    ] {
        let theirs: Manifest = serde_yaml::from_str(text).unwrap();
        let policy = load("p.yaml", text).policy.unwrap();
        let ours = policy.settings();
        assert_eq!(theirs.version, "v1");
        assert_eq!(ours.name.as_deref(), Some(&*theirs.name));
        let their_ports: Vec<u16> = theirs
            .ingress
            .into_iter()
            .flatten()
            .map(|i| i.listen_port)
            .collect();
        let our_ports: Vec<u16> = ours.ingress.iter().map(|i| i.listen_port.get()).collect();
        assert_eq!(our_ports, their_ports);
        let egress = theirs.egress.unwrap_or_default();
        let count = |list: Option<Vec<_>>| list.map_or(0, |list| list.len());
        assert_eq!(
            policy.rule_counts(),
            (count(egress.allow), count(egress.deny))
        );
        let kms = ours.kms_proxy.as_ref();
        assert_eq!(
            kms.map(|k| (k.listen_port.get(), k.endpoints.clone())),
            theirs
                .kms_proxy
                .map(|k| (k.listen_port, endpoints(k.endpoints)))
        );
        let api = ours.api.as_ref().map(|a| a.listen_port.get());
        assert_eq!(api, theirs.api.map(|a| a.listen_port));
    }
}

#[test]
fn strings_in_every_style_are_the_same_strings() {
    for scalar in [
        "plain",
        "'single ''quoted'''",
        "\"double \\\"quoted\\\" \\x41 \\u00fc\"",
        "'# no comment'",
        "a#b # comment",
        "'12'",
        "\"true\"",
        "|-\n  block\n  text",
        ">-\n  folded\n  text\n\n  more",
        "multi\n  line\n  plain",
        "ünïcode",
    ] {
        let text = format!("version: v1\nname: {scalar}\n");
        let theirs: Manifest = serde_yaml::from_str(&text).unwrap();
        let policy = load("p.yaml", &text).policy.unwrap();
        assert_eq!(
            policy.settings().name.as_deref(),
            Some(&*theirs.name),
            "{scalar}"
        );
    }
}
