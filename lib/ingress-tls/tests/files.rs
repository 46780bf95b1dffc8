//! TLS files: valid ones, and every kind of fault.

use std::collections::HashMap;
use std::io;

use odyn_ingress_tls::{MAX_FILE, load};
use odyn_policy::{IngressTls, TlsFiles};

struct Pair {
    cert: String,
    key: String,
}

fn pair(name: &str) -> Pair {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    Pair {
        cert: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

fn wanted(tls: &str) -> TlsFiles {
    let text = format!("version: v1\ningress:\n  - listen_port: 443\n    tls: {tls}\n");
    let loaded = odyn_policy::load("p", &text);
    let policy = loaded
        .policy
        .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    match &policy.settings().ingress[0].tls {
        Some(IngressTls::Files(files)) => (**files).clone(),
        other => panic!("{other:?}"),
    }
}

/// The faults of these files, with the column of each in its line of the policy.
fn said(tls: &str, files: &[(&str, &str)]) -> Vec<String> {
    let files: HashMap<&str, &str> = files.iter().copied().collect();
    let read = |path: &str| {
        let text = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(text.as_bytes().to_vec())
    };
    match load(&wanted(tls), read) {
        Ok(_) => Vec::new(),
        Err(faults) => faults
            .iter()
            .map(|f| f.diagnostic("p").to_string())
            .collect(),
    }
}

const ONE: &str = "{ cert_file: /c, key_file: /k }";

#[test]
fn right_files_are_taken() {
    let (a, b) = (pair("a.example"), pair("b.example"));
    assert!(said(ONE, &[("/c", &a.cert), ("/k", &a.key)]).is_empty());
    let chain = format!("text before\n{}{}", a.cert, b.cert);
    assert!(said(ONE, &[("/c", &chain), ("/k", &a.key)]).is_empty());
    let two = "{ certificates: [{ cert_file: /c, key_file: /k }, { cert_file: /d, key_file: /l }], \
               client_ca_file: /d, client_certificates: optional, alpn: [h2], min_version: 1.3 }";
    let files = [
        ("/c", &*a.cert),
        ("/k", &a.key),
        ("/d", &b.cert),
        ("/l", &b.key),
    ];
    assert!(said(two, &files).is_empty());
}

#[test]
fn every_wrong_file_is_named_with_its_place() {
    let (a, b) = (pair("a.example"), pair("b.example"));
    let large = " ".repeat(usize::try_from(MAX_FILE).unwrap() + 1);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let half = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for (cert, key, _, words) in [
        (
            &*a.cert,
            &*b.key,
            "p:4:34",
            "/k: is not the key of the certificate in /c",
        ),
        (&*a.key, &a.key, "p:4:23", "/c: has no certificate"),
        ("", &a.key, "p:4:23", "/c: has no certificate"),
        (&large, &a.key, "p:4:23", "/c: is larger than"),
        (
            broken,
            &a.key,
            "p:4:23",
            "/c: has a certificate that can't be parsed",
        ),
        (half, &a.key, "p:4:23", "/c: is not PEM"),
        (&*a.cert, "", "p:4:37", "/k: has no private key"),
        (&*a.cert, &a.cert, "p:4:37", "/k: has no private key"),
        (
            &*a.cert,
            locked,
            "p:4:37",
            "/k: has a private key with a password",
        ),
    ] {
        let said = said(ONE, &[("/c", cert), ("/k", key)]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(words), "{said:?}");
        assert!(
            said[0].contains("error[tls-file]") && said[0].contains("(help: "),
            "{said:?}"
        );
    }
    let said = said(ONE, &[]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("p:4:23: error[tls-file]: /c: can't be read"),
        "{said:?}"
    );
    assert!(said[1].contains("/k: can't be read"), "{said:?}");
}

#[test]
fn an_authority_that_is_none_is_found() {
    let a = pair("a.example");
    let tls = "{ cert_file: /c, key_file: /k, client_ca_file: /ca }";
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (ca, words) in [
        ("", "/ca: has no certificate"),
        (broken, "/ca: has an authority that can't be used"),
    ] {
        let said = said(tls, &[("/c", &a.cert), ("/k", &a.key), ("/ca", ca)]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(words), "{said:?}");
    }
}

#[test]
fn no_message_has_a_key_in_it() {
    let a = pair("a.example");
    let secret: String = a.key.lines().nth(1).unwrap().to_owned();
    let cut = &a.key[..a.key.len() / 2];
    for key in [cut, &a.key.replace("PRIVATE KEY", "CERTIFICATE")] {
        let said = said(ONE, &[("/c", &a.cert), ("/k", key)]).join("\n");
        assert!(!said.is_empty() && !said.contains(&secret[..16]), "{said}");
    }
}
