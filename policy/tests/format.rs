//! Accepted texts with their meaning, and refused texts with their errors.

use std::time::Duration;

use odyn_policy::{
    IngressTls, LoadedPolicy, Mode, Policy, ProxyProtocol, Severity, TlsVersion, check, load,
    load_bytes,
};

fn accepted(name: &str, text: &str) -> Policy {
    let loaded = load(name, text);
    match loaded.policy {
        Some(policy) => policy,
        None => panic!("{name}: {:#?}", loaded.diagnostics),
    }
}

fn codes(loaded: &LoadedPolicy) -> Vec<(&'static str, u32)> {
    let found = loaded.diagnostics.iter();
    found
        .filter(|d| d.severity > Severity::Note)
        .map(|d| (d.code, d.span.line))
        .collect()
}

#[test]
fn every_key_is_read() {
    let policy = accepted("full.yaml", include_str!("policies/full.yaml"));
    let settings = policy.settings();
    assert_eq!(settings.name.as_deref(), Some("payments"));
    assert_eq!(settings.mode, Mode::Enforce);
    assert_eq!(settings.dns.ttl, Duration::from_secs(45));
    assert_eq!(settings.shutdown.drain_timeout, Duration::from_secs(120));
    assert_eq!(
        settings.api.as_ref().map(|api| api.listen_port.get()),
        Some(9998)
    );
    let kms = settings.kms_proxy.as_ref().unwrap();
    assert_eq!(kms.listen_port.get(), 9999);
    assert_eq!(
        kms.endpoints["eu-west-1"].authority(),
        "kms-fips.eu-west-1.amazonaws.com:443"
    );
    let ports: Vec<_> = settings
        .ingress
        .iter()
        .map(|i| (i.listen_port.get(), i.target_port.get(), i.proxy_protocol))
        .collect();
    assert_eq!(
        ports,
        [
            (8443, 8080, Some(ProxyProtocol::V2)),
            (9443, 9443, Some(ProxyProtocol::V1)),
            (80, 80, None)
        ]
    );
    assert!(matches!(
        &settings.ingress[0].tls,
        Some(IngressTls::Files(files))
            if files.files().map(|file| file.path.as_str()).eq(["/etc/tls/cert.pem", "/etc/tls/key.pem"])
                && files.clients.is_none() && files.alpn.is_empty()
    ));
    assert_eq!(settings.ingress[1].tls, Some(IngressTls::Attested));
    assert_eq!(settings.ingress[2].tls, None);
    assert_eq!(policy.rule_counts(), (12, 2));
}

#[test]
fn demands_on_kms_are_read() {
    let text = "version: v1\nkms_proxy: {listen_port: 9, ca_file: /ca.pem, require_key_id: true}\n";
    let loaded = odyn_policy::load_bytes("test", text.as_bytes());
    let policy = loaded.policy.unwrap();
    let kms = policy.settings().kms_proxy.as_ref().unwrap();
    assert_eq!(kms.ca_file.as_deref(), Some("/ca.pem"));
    assert!(kms.require_key_id && !kms.require_encryption_context);
    let wrong = "version: v1\nkms_proxy: {listen_port: 9, require_key_id: 1}\n";
    assert!(
        odyn_policy::load_bytes("test", wrong.as_bytes())
            .policy
            .is_none()
    );
}

#[test]
fn certificates_by_name_clients_and_protocols_are_read() {
    let text = "version: v1
ingress:
  - listen_port: 443
    wait_timeout: 2m
    tls:
      certificates:
        - { cert_file: /a.pem, key_file: /a.key }
        - { cert_file: /b.pem, key_file: /b.key }
      client_ca_file: /ca.pem
      client_certificates: optional
      alpn: [h2, http/1.1]
      min_version: 1.3
";
    let policy = accepted("p", text);
    let Some(IngressTls::Files(tls)) = &policy.settings().ingress[0].tls else {
        panic!("no files");
    };
    let files: Vec<_> = tls.files().map(|f| (&*f.path, f.span.line)).collect();
    let wanted = [
        ("/a.pem", 7),
        ("/a.key", 7),
        ("/b.pem", 8),
        ("/b.key", 8),
        ("/ca.pem", 9),
    ];
    assert_eq!(files, wanted);
    let wait = policy.settings().ingress[0].wait_timeout;
    assert_eq!(wait, Duration::from_secs(120));
    assert!(!tls.clients.as_ref().expect("a CA").required);
    assert_eq!(tls.alpn, ["h2", "http/1.1"]);
    assert_eq!(tls.min_version, TlsVersion::V1_3);

    let text = text.replace("      client_certificates: optional\n", "");
    let policy = accepted("p", &text.replace("1.3", "\"1.2\""));
    let Some(IngressTls::Files(tls)) = &policy.settings().ingress[0].tls else {
        panic!("no files");
    };
    assert!(tls.clients.as_ref().expect("a CA").required);
    assert_eq!(tls.min_version, TlsVersion::V1_2);
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let policy = accepted("p", "version: v1\n");
    let settings = policy.settings();
    assert_eq!(settings.mode, Mode::Enforce);
    assert_eq!(settings.dns.ttl, Duration::from_secs(30));
    assert_eq!(settings.shutdown.drain_timeout, Duration::from_secs(30));
    assert!(settings.ingress.is_empty() && settings.kms_proxy.is_none() && settings.api.is_none());
    assert_eq!(policy.rule_counts(), (0, 0));
}

#[test]
fn enclaver_manifests_load_unchanged() {
    for (name, text, foreign, allow) in [
        (
            "spiffe",
            include_str!("policies/enclaver-spiffe-client.yaml"),
            &["target", "sources", "defaults", "spire"][..],
            1,
        ),
        (
            "vault",
            include_str!("policies/enclaver-vault.yaml"),
            &["target", "sources", "signature", "proxy_port", "defaults"],
            5,
        ),
        (
            "minimal",
            include_str!("policies/enclaver-minimal.yaml"),
            &["target", "sources", "defaults"],
            0,
        ),
    ] {
        let loaded = load(name, text);
        let notes: Vec<_> = loaded
            .diagnostics
            .iter()
            .filter(|d| d.code == "foreign-key")
            .map(|d| d.message.split('`').nth(1).unwrap_or_default())
            .collect();
        assert_eq!(notes, foreign, "{name}");
        assert!(
            loaded
                .diagnostics
                .iter()
                .all(|d| d.severity == Severity::Note),
            "{name}"
        );
        assert_eq!(loaded.policy.unwrap().rule_counts().0, allow, "{name}");
    }
}

/// A text, and the code, line and column that it must be refused with.
const REFUSED: &[(&str, &str, u32, u32)] = &[
    ("name: a\n", "missing-key", 1, 1),
    ("version: v2\n", "bad-version", 1, 10),
    ("version: 1\n", "wrong-type", 1, 10),
    ("version: v1\nversion: v1\n", "duplicate-key", 2, 1),
    ("version: v1\negres: {}\n", "unknown-key", 2, 1),
    ("version: v1\n? [a]\n: b\n", "yaml", 2, 3),
    ("version: v1\n---\nversion: v1\n", "yaml", 2, 1),
    ("version: v1\nname: !x y\n", "yaml", 2, 7),
    ("version: v1\nname: [a\n", "yaml", 3, 1),
    ("version: v1\nname: {a: b}\n", "wrong-type", 2, 7),
    ("version: v1\nname: 12\n", "wrong-type", 2, 7),
    ("- version: v1\n", "wrong-type", 1, 1),
    ("version: v1\negress: [a]\n", "wrong-type", 2, 9),
    ("version: v1\negress: {mode: strict}\n", "bad-value", 2, 16),
    ("version: v1\negress: {allow: a.com}\n", "wrong-type", 2, 17),
    (
        "version: v1\negress: {allow: [[a.com]]}\n",
        "wrong-type",
        2,
        18,
    ),
    ("version: v1\negress: {allow: [~]}\n", "wrong-type", 2, 18),
    (
        "version: v1\negress: {allow: [true]}\n",
        "wrong-type",
        2,
        18,
    ),
    (
        "version: v1\negress: {allow: [10.1]}\n",
        "bad-address",
        2,
        18,
    ),
    (
        "version: v1\negress: {allow: [2130706433]}\n",
        "bad-address",
        2,
        18,
    ),
    (
        "version: v1\negress: {allow: [10.1.0.5/16]}\n",
        "host-bits",
        2,
        18,
    ),
    (
        "version: v1\negress: {allow: [a..com]}\n",
        "bad-name",
        2,
        18,
    ),
    (
        "version: v1\negress: {allow: ['a.com:443']}\n",
        "bad-destination",
        2,
        18,
    ),
    ("version: v1\negress: {allow: [*.a.com]}\n", "yaml", 2, 18),
    (
        "version: v1\negress: {allow: [{ports: [1]}]}\n",
        "missing-key",
        2,
        18,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, port: 1}]}\n",
        "unknown-key",
        2,
        30,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, ports: 443}]}\n",
        "wrong-type",
        2,
        37,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, ports: []}]}\n",
        "bad-port",
        2,
        37,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, ports: [70000]}]}\n",
        "bad-port",
        2,
        38,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, ports: [-1]}]}\n",
        "bad-port",
        2,
        38,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, ports: [9-1]}]}\n",
        "bad-port",
        2,
        38,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, ports: [https]}]}\n",
        "bad-port",
        2,
        38,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, ports: [0x50]}]}\n",
        "bad-port",
        2,
        38,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, protocol: sctp}]}\n",
        "bad-value",
        2,
        40,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, sni: yes}]}\n",
        "bad-value",
        2,
        35,
    ),
    (
        "version: v1\negress: {allow: [{to: 10.0.0.1, sni: required}]}\n",
        "bad-sni",
        2,
        38,
    ),
    (
        "version: v1\negress: {allow: [{to: host, sni: required}]}\n",
        "bad-sni",
        2,
        34,
    ),
    (
        "version: v1\negress: {deny: [{to: a.com, sni: required}]}\n",
        "bad-sni",
        2,
        34,
    ),
    (
        "version: v1\negress: {allow: [{to: a.com, protocol: any, sni: required}]}\n",
        "bad-sni",
        2,
        50,
    ),
    ("version: v1\ndns: {ttl: 30}\n", "bad-value", 2, 12),
    ("version: v1\ndns: {ttl: soon}\n", "wrong-type", 2, 12),
    ("version: v1\ndns: {ttl: 48h}\n", "bad-value", 2, 12),
    (
        "version: v1\nshutdown: {drain_timeout: 2h}\n",
        "bad-value",
        2,
        27,
    ),
    (
        "version: v1\ningress: {listen_port: 1}\n",
        "wrong-type",
        2,
        10,
    ),
    (
        "version: v1\ningress: [{target_port: 1}]\n",
        "missing-key",
        2,
        11,
    ),
    (
        "version: v1\ningress: [{listen_port: 0}]\n",
        "bad-port",
        2,
        25,
    ),
    (
        "version: v1\ningress: [{listen_port: '1'}]\n",
        "wrong-type",
        2,
        25,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {cert_file: /a}}]\n",
        "missing-key",
        2,
        33,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {attested: false}}]\n",
        "missing-key",
        2,
        33,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {attested: true, key_file: a}}]\n",
        "bad-value",
        2,
        44,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {cert_file: a, key_file: /b}}]\n",
        "bad-value",
        2,
        45,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {cert_file: /a, certificates: []}}]\n",
        "bad-value",
        2,
        63,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {certificates: []}}]\n",
        "bad-value",
        2,
        48,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {certificates: [{cert_file: /a}]}}]\n",
        "missing-key",
        2,
        49,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {cert_file: /a, key_file: /b, min_version: 1.1}}]\n",
        "bad-value",
        2,
        76,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {cert_file: /a, key_file: /b, alpn: ['']}}]\n",
        "bad-value",
        2,
        70,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {cert_file: /a, key_file: /b, client_certificates: optional}}]\n",
        "missing-key",
        2,
        84,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, tls: {cert_file: /a, key_file: /b, client_ca_file: /c, client_certificates: no}}]\n",
        "bad-value",
        2,
        104,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, wait_timeout: 301s}]\n",
        "bad-value",
        2,
        42,
    ),
    (
        "version: v1\ningress: [{listen_port: 1, proxy_protocol: v3}]\n",
        "bad-value",
        2,
        44,
    ),
    ("version: v1\nkms_proxy: {}\n", "missing-key", 2, 12),
    (
        "version: v1\nkms_proxy: {listen_port: 1, endpoints: {a: 1}}\n",
        "wrong-type",
        2,
        44,
    ),
    (
        "version: v1\nkms_proxy: {listen_port: 1, endpoints: {eu-west-1a: a.com}}\n",
        "unknown-key",
        2,
        41,
    ),
    (
        "version: v1\nkms_proxy:\n  listen_port: 1\n  endpoints:\n    eu-west-1: http://a.com\n",
        "bad-value",
        5,
        16,
    ),
    (
        "version: v1\nkms_proxy:\n  listen_port: 1\n  endpoints:\n    eu-west-1: a.com:99999\n",
        "bad-port",
        5,
        16,
    ),
    (
        "version: v1\nkms_proxy:\n  listen_port: 1\n  endpoints:\n    eu-west-1: 192.0.2.1\n",
        "bad-name",
        5,
        16,
    ),
    (
        "version: v1\nkms_proxy: {listen_port: 1, ca_file: ca.pem}\n",
        "bad-value",
        2,
        38,
    ),
    (
        "version: v1\napi: {listen_port: 65536}\n",
        "bad-port",
        2,
        20,
    ),
    ("version: v1\nname: a\u{202e}b\n", "hidden-character", 2, 8),
    ("version: v1\nname: a\u{8}b\n", "yaml", 2, 8),
];

#[test]
fn what_is_refused_and_where() {
    for (text, code, line, column) in REFUSED {
        let loaded = load("p.yaml", text);
        assert!(loaded.policy.is_none(), "accepted: {text}");
        let found: Vec<_> = loaded
            .errors()
            .map(|d| (d.code, d.span.line, d.span.column))
            .collect();
        assert!(
            found.contains(&(code, *line, *column)),
            "{text}\nsays {found:?}, not {code}"
        );
    }
}

#[test]
fn suggestions_and_fixes() {
    for (text, help) in [
        ("version: v1\negres: {}\n", "did you mean `egress`?"),
        ("version: v1\nkms-proxy: {}\n", "did you mean `kms_proxy`?"),
        (
            "version: v1\nkms_proxy: {listen_port: 1, endpoints: {EU_west_1b: a.com}}\n",
            "did you mean `eu-west-1`?",
        ),
        (
            "version: v1\nkms_proxy: {listen_port: 1, endpoints: {default: a.com}}\n",
            "the keys are regions",
        ),
        (
            "version: v1\nkms_proxy: {listen_port: 1, endpoints: {eu-west-1: 'http://a.com/'}}\n",
            "write `https://a.com/`",
        ),
        ("version: v1\nsource: {}\n", "did you mean `sources`?"),
        (
            "version: v1\nbanana: {}\n",
            "the keys are version, name, egress",
        ),
        ("version: v1\negress: {allow: [*.a.com]}\n", "need quotes"),
        (
            "version: v1\negress:\n  allow:\n    - **.a.com\n",
            "need quotes",
        ),
        ("version: v1\negress:\n\tallow: []\n", "spaces"),
        (
            "version: v1\negress: {allow: [{to: a.com, port: 1}]}\n",
            "did you mean `ports`?",
        ),
        (
            "version: v1\negress: {mode: Report}\n",
            "did you mean `report`?",
        ),
        (
            "version: v1\negress: {allow: [{to: a.com, protocol: TCP}]}\n",
            "did you mean `tcp`?",
        ),
        (
            "version: v1\negress: {allow: [{to: a.com, ports: ['9-1']}]}\n",
            "\"1-9\"",
        ),
        ("version: v1\ndns: {ttl: 30}\n", "ttl: 30s"),
        ("version: v1\n<<: {}\n", "merge keys"),
        ("version: 1\n", "`version: v1`"),
    ] {
        let loaded = load("p.yaml", text);
        let said: Vec<_> = loaded.errors().filter_map(|d| d.help.as_deref()).collect();
        assert!(
            said.iter().any(|s| s.contains(help)),
            "{text}\nsays {said:?}, not {help:?}"
        );
    }
}

#[test]
fn all_errors_of_a_file_are_found_at_once() {
    let text =
        "version: v2\nnam: a\negress:\n  allow:\n    - 10.0.0.0/33\n    - a..b\ndns: {ttl: 1}\n";
    let loaded = load("p.yaml", text);
    let lines: Vec<_> = loaded.errors().map(|d| d.span.line).collect();
    assert_eq!(lines, [1, 2, 5, 6, 7]);
}

#[test]
fn yaml_in_its_many_forms() {
    let plain = accepted(
        "p",
        "version: v1\negress:\n  allow:\n    - a.com\n    - b.com\n",
    );
    for text in [
        "{\"version\": \"v1\", \"egress\": {\"allow\": [\"a.com\", \"b.com\"]}}",
        "---\nversion: v1\negress:\n  allow: [a.com, b.com]\n...\n",
        "\u{feff}version: v1\r\negress:\r\n  allow:\r\n  - a.com\r\n  - 'b.com'\r\n",
        "version: v1\negress:\n  allow:\n  - &a a.com\n  - b.com\n  deny: [*a]\n",
        "version: !!str v1\negress:\n  allow:\n  - \"\\x61.com\"\n  - >-\n    b.com\n",
    ] {
        assert_eq!(
            accepted("p", text).rule_counts().0,
            plain.rule_counts().0,
            "{text}"
        );
    }
}

#[test]
fn a_byte_order_mark_does_not_move_columns() {
    let loaded = load_bytes("p", "\u{feff}versio: v1\n".as_bytes());
    let places: Vec<_> = loaded
        .errors()
        .map(|d| (d.code, d.span.line, d.span.column))
        .collect();
    assert!(places.contains(&("unknown-key", 1, 1)), "{places:?}");
}

/// A policy's egress section and the findings that it must give, all of them.
const LINTS: &[(&str, &[(&str, u32)])] = &[
    ("allow: [a.example, a.example]", &[("duplicate-rule", 2)]),
    ("allow: [a.example, A.Example.]", &[("duplicate-rule", 2)]),
    (
        "allow: [a.example]\n  deny: [b.example, b.example]",
        &[("duplicate-rule", 3)],
    ),
    (
        "allow: [{to: a.example, ports: [1]}, {to: a.example, ports: [2]}]",
        &[],
    ),
    (
        "allow: [{to: a.example, ports: [1]}, a.example]",
        &[("shadowed-rule", 2)],
    ),
    ("allow: [a.example, '*.example']", &[("shadowed-rule", 2)]),
    ("allow: [a.b.example, '*.example']", &[]),
    (
        "allow: [a.b.example, '**.example']",
        &[("shadowed-rule", 2)],
    ),
    (
        "allow: ['*.b.example', '**.example']",
        &[("shadowed-rule", 2)],
    ),
    (
        "allow: ['**.b.example', '*.b.example']",
        &[("shadowed-rule", 2)],
    ),
    (
        "allow: ['api-*.b.example', 'api-1*.b.example']",
        &[("shadowed-rule", 2)],
    ),
    (
        "allow: ['x.*.b.example', 'x.y.b.example']",
        &[("shadowed-rule", 2)],
    ),
    ("allow: [{to: '**.example', ports: [443]}, a.example]", &[]),
    (
        "allow: [{to: '**.example', ports: ['1-1000']}, {to: a.example, ports: [443]}]",
        &[("shadowed-rule", 2)],
    ),
    (
        "allow: [{to: '**.example', protocol: tcp}, {to: a.example, sni: required}]",
        &[],
    ),
    (
        "allow: [{to: a.example, protocol: tcp}, {to: a.example, sni: required}]",
        &[("duplicate-rule", 2)],
    ),
    ("allow: [10.0.0.0/8, 10.1.0.0/16]", &[("shadowed-rule", 2)]),
    ("allow: [126.0.0.0/7, 127.0.0.1]", &[]),
    ("allow: [127.0.0.0/8, 127.0.0.1]", &[("shadowed-rule", 2)]),
    ("allow: [240.0.0.0/4, 255.255.255.255]", &[]),
    (
        "allow: ['2001:db8::/32', '2001:db8::1']",
        &[("shadowed-rule", 2)],
    ),
    (
        "allow: [10.0.0.0/8, '::ffff:10.0.0.1']",
        &[("shadowed-rule", 2)],
    ),
    ("allow: [host, host]", &[("duplicate-rule", 2)]),
    (
        "allow: [{to: host, ports: [1]}, host]",
        &[("shadowed-rule", 2)],
    ),
    (
        "allow: [a.example]\n  deny: ['**.example']",
        &[("unreachable-rule", 2)],
    ),
    (
        "allow: [a.example]\n  deny: [{to: '**.example', ports: [443]}]",
        &[],
    ),
    (
        "allow: [{to: a.example, ports: [443]}]\n  deny: [{to: '**.example', ports: ['400-500']}]",
        &[("unreachable-rule", 2)],
    ),
    (
        "allow: [10.1.0.0/16]\n  deny: [10.0.0.0/8]",
        &[("unreachable-rule", 2)],
    ),
    (
        "allow: [127.0.0.1]\n  deny: [0.0.0.0/0]",
        &[("unreachable-rule", 2)],
    ),
    ("allow: [host]\n  deny: [host]", &[("unreachable-rule", 2)]),
    ("allow: [198.18.5.0/24]", &[("unreachable-rule", 2)]),
    ("allow: [localhost]", &[("unreachable-rule", 2)]),
    (
        "allow: [{to: a.example, ports: [0]}]",
        &[("unreachable-rule", 2), ("port-zero", 2)],
    ),
    (
        "allow: [{to: a.example, ports: ['0-80']}]",
        &[("port-zero", 2)],
    ),
    // A deny rule for all of a name also ends CNAME chains that start at an allowed name.
    ("allow: [a.example]\n  deny: [b.example]", &[]),
    (
        "allow: [a.example]\n  deny: [{to: b.example, ports: [1]}]",
        &[("useless-deny", 3)],
    ),
    (
        "allow: [a.example]\n  deny: [{to: '*.b.example', ports: [1]}]",
        &[("useless-deny", 3)],
    ),
    (
        "allow: ['*.b.example']\n  deny: [{to: 'x-*.b.example', ports: [1]}]",
        &[],
    ),
    (
        "allow: [a.b.example]\n  deny: [{to: '**.example', ports: [1]}]",
        &[],
    ),
    (
        "allow: [{to: a.example, ports: [2]}]\n  deny: [{to: a.example, ports: [1]}]",
        &[("useless-deny", 3)],
    ),
    (
        "allow: [{to: a.example, ports: ['1-9']}]\n  deny: [{to: a.example, ports: [5]}]",
        &[],
    ),
    (
        "allow: [10.0.0.1]\n  deny: [a.example]",
        &[("useless-deny", 3)],
    ),
    (
        "allow: [10.0.0.1]\n  deny: [10.0.0.2]",
        &[("useless-deny", 3)],
    ),
    ("allow: [10.0.0.0/8]\n  deny: [10.0.0.2]", &[]),
    (
        "allow: [10.0.0.2]\n  deny: [{to: 10.0.0.0/8, ports: [1]}]",
        &[],
    ),
    ("allow: [a.example]\n  deny: [10.0.0.2]", &[]),
    ("allow: [a.example]\n  deny: [host]", &[("useless-deny", 3)]),
    (
        "allow: [{to: host, ports: [1]}]\n  deny: [{to: host, ports: [2]}]",
        &[("useless-deny", 3)],
    ),
    ("allow: ['**']", &[("any-name", 2)]),
    ("allow: ['*']", &[("any-name", 2)]),
    ("allow: ['*.**']", &[("any-name", 2)]),
    (
        "allow: [0.0.0.0/0, '::/0']",
        &[("any-address", 2), ("any-address", 2)],
    ),
    ("allow: ['**.com']", &[("public-suffix", 2)]),
    ("allow: ['*.co.uk']", &[("public-suffix", 2)]),
    ("allow: ['api-*.github.io']", &[("public-suffix", 2)]),
    ("allow: ['*.example.co.uk']", &[]),
    ("allow: ['*.internal']", &[]),
    ("allow: [169.254.169.254]", &[("metadata-address", 2)]),
    ("allow: [169.254.0.0/16]", &[("metadata-address", 2)]),
    ("allow: [169.254.169.0/25]", &[]),
    ("allow: ['fd00:ec2::254']", &[("metadata-address", 2)]),
    ("allow: [169.0.0.0/8]", &[]),
    (
        "deny: [169.254.169.254, '**']",
        &[("useless-deny", 2), ("useless-deny", 2)],
    ),
];

#[test]
fn lints_find_what_they_should_and_nothing_else() {
    for (egress, wanted) in LINTS {
        let text = format!("version: v1\negress:\n  {egress}\n");
        // The rules start on line 3 of the text; the table counts from `egress`.
        let loaded = check("p.yaml", &text);
        assert!(loaded.policy.is_some(), "{text}{:?}", loaded.diagnostics);
        let found: Vec<_> = codes(&loaded)
            .into_iter()
            .map(|(c, l)| (c, l - 1))
            .collect();
        assert_eq!(&found[..], *wanted, "{text}{:#?}", loaded.diagnostics);
    }
}

#[test]
fn port_collisions() {
    for (text, wanted) in [
        ("ingress: [{listen_port: 1}, {listen_port: 2}]", 0),
        ("ingress: [{listen_port: 1}, {listen_port: 1}]", 1),
        (
            "ingress: [{listen_port: 1, target_port: 5}, {listen_port: 2, target_port: 5}]",
            0,
        ),
        ("ingress: [{listen_port: 1}]\napi: {listen_port: 1}", 1),
        (
            "ingress: [{listen_port: 1, target_port: 2}]\napi: {listen_port: 1}",
            0,
        ),
        (
            "ingress: [{listen_port: 1, target_port: 2}]\nkms_proxy: {listen_port: 2}",
            1,
        ),
        ("kms_proxy: {listen_port: 2}\napi: {listen_port: 2}", 1),
    ] {
        let loaded = check("p.yaml", &format!("version: v1\n{text}\n"));
        let found = codes(&loaded);
        assert!(
            found.iter().all(|(code, _)| *code == "port-collision"),
            "{found:?}"
        );
        assert_eq!(found.len(), wanted, "{text}: {:#?}", loaded.diagnostics);
    }
}

#[test]
fn every_code_that_is_used_is_listed_with_its_severity() {
    let mut seen = std::collections::BTreeSet::new();
    let lint_texts = LINTS
        .iter()
        .map(|(egress, _)| format!("version: v1\negress:\n  {egress}\n"));
    let texts = REFUSED
        .iter()
        .map(|(text, ..)| (*text).to_owned())
        .chain(lint_texts);
    for text in texts {
        for diagnostic in check("p", &text).diagnostics {
            let code = odyn_policy::codes::ALL
                .iter()
                .find(|c| c.id == diagnostic.code);
            let code = code.unwrap_or_else(|| panic!("{} is not listed", diagnostic.code));
            assert_eq!(code.severity, diagnostic.severity, "{}", code.id);
            seen.insert(code.id);
        }
    }
    let elsewhere = [
        "not-utf8",
        "too-large",
        "empty",
        "foreign-key",
        "port-collision",
        "tls-file",
        "tls-files-unchecked",
    ];
    for code in odyn_policy::codes::ALL {
        assert!(
            seen.contains(code.id) || elsewhere.contains(&code.id),
            "nothing here gives {}",
            code.id
        );
    }
}
