//! `ingress[].tls`.

use super::fields::Fields;
use super::{fields, keys};
use crate::codes;
use crate::diagnostic::{DiagnosticSink, Span};
use crate::settings::{
    CertificateFiles, ClientCertificates, FilePath, IngressTls, TlsFiles, TlsVersion,
};
use crate::yaml::{ScalarKind, YamlNode, YamlValue, short};

const EXAMPLE: &str = "`tls: { cert_file: /etc/tls/cert.pem, key_file: /etc/tls/key.pem }` or `tls: { attested: true }`";
const LIST: &str = "`certificates: [{ cert_file: /etc/tls/cert.pem, key_file: /etc/tls/key.pem }]`";

/// Most certificates of one port, for a handshake may look at all of them.
const MAX_CERTIFICATES: usize = 256;
/// Longest name of a protocol in bytes (RFC 7301).
const MAX_ALPN: usize = 255;
/// Most protocols, for one handshake message contains all of them.
const MAX_PROTOCOLS: usize = 16;

pub(super) fn tls(node: &YamlNode, sink: &mut DiagnosticSink) -> Option<IngressTls> {
    let fields = Fields::open(node, "`tls`", EXAMPLE, sink)?;
    fields.check_keys(&keys::TLS, sink);
    let own = ["cert_file", "key_file"];
    let has_files = own.iter().any(|key| fields.get(key).is_some());
    if boolean(&fields, "attested", sink)? {
        if has_files || fields.get("certificates").is_some() {
            let message = "`attested` makes its own key and certificate";
            sink.error(codes::BAD_VALUE, fields.span("attested"), message)
                .help("remove `attested`, or the files");
        }
        return Some(IngressTls::Attested);
    }
    let certificates = match fields.get("certificates") {
        Some(list) if has_files => {
            let message = "`certificates` stands beside `cert_file` or `key_file`";
            sink.error(codes::BAD_VALUE, list.span, message)
                .help("make these two the first entry of `certificates`");
            None
        }
        Some(list) => certificates(list, sink),
        None => certificate(&fields, "`tls`", node.span, sink).map(|files| vec![files]),
    };
    let clients = clients(&fields, sink);
    let alpn = alpn(&fields, sink);
    let min_version = min_version(&fields, sink);
    Some(IngressTls::Files(Box::new(TlsFiles {
        certificates: certificates?,
        clients,
        alpn,
        min_version,
    })))
}

fn certificates(list: &YamlNode, sink: &mut DiagnosticSink) -> Option<Vec<CertificateFiles>> {
    let items = fields::list(list, "`certificates`", LIST, sink);
    if items.is_empty() && matches!(list.value, YamlValue::Sequence(_)) || list.is_null() {
        sink.error(codes::BAD_VALUE, list.span, "`certificates` is empty")
            .help(format!("for example {LIST}"));
    }
    if items.len() > MAX_CERTIFICATES {
        let message = format!("`certificates` can have at most {MAX_CERTIFICATES} entries");
        sink.error(codes::BAD_VALUE, list.span, message);
        return None;
    }
    let what = "an entry of `certificates`";
    let read: Vec<CertificateFiles> = items
        .iter()
        .filter_map(|item| {
            let fields = Fields::open(item, what, LIST, sink)?;
            fields.check_keys(&keys::CERTIFICATE, sink);
            certificate(&fields, what, item.span, sink)
        })
        .collect();
    (!read.is_empty()).then_some(read)
}

fn certificate(
    fields: &Fields<'_>,
    what: &str,
    at: Span,
    sink: &mut DiagnosticSink,
) -> Option<CertificateFiles> {
    let cert_file = file(fields, "cert_file", "/etc/tls/cert.pem", sink);
    let key_file = file(fields, "key_file", "/etc/tls/key.pem", sink);
    for key in ["cert_file", "key_file"] {
        if fields.get(key).is_none() {
            sink.error(codes::MISSING_KEY, at, format!("{what} needs `{key}`"))
                .help(format!("for example {EXAMPLE}"));
        }
    }
    Some(CertificateFiles {
        cert_file: cert_file?,
        key_file: key_file?,
    })
}

/// An absolute path in the guest.
pub(super) fn file(
    fields: &Fields<'_>,
    key: &str,
    example: &str,
    sink: &mut DiagnosticSink,
) -> Option<FilePath> {
    let path = fields.string(key, example, sink)?;
    let span = fields.span(key);
    if !path.starts_with('/') || path.contains('\0') {
        let message = format!("`{key}` must be an absolute path, not {:?}", short(&path));
        sink.error(codes::BAD_VALUE, span, message)
            .help(format!("for example `{key}: {example}`"));
        return None;
    }
    Some(FilePath { path, span })
}

fn clients(fields: &Fields<'_>, sink: &mut DiagnosticSink) -> Option<ClientCertificates> {
    let ca_file = file(fields, "client_ca_file", "/etc/tls/clients.pem", sink);
    let key = "client_certificates";
    let wanted = fields.string(key, "required", sink);
    let required = match wanted.as_deref() {
        None | Some("required") => true,
        Some("optional") => false,
        Some(other) => {
            let message = format!("`{key}` is required or optional, not {:?}", short(other));
            sink.error(codes::BAD_VALUE, fields.span(key), message)
                .help("remove it if clients need no certificate");
            return None;
        }
    };
    if fields.get(key).is_some() && fields.get("client_ca_file").is_none() {
        let message = format!("`{key}` needs `client_ca_file`");
        sink.error(codes::MISSING_KEY, fields.span(key), message)
            .help("for example `client_ca_file: /etc/tls/clients.pem`");
    }
    Some(ClientCertificates {
        ca_file: ca_file?,
        required,
    })
}

fn alpn(fields: &Fields<'_>, sink: &mut DiagnosticSink) -> Vec<String> {
    const EXAMPLE: &str = "`alpn: [h2, http/1.1]`";
    let Some(node) = fields.get("alpn") else {
        return Vec::new();
    };
    let items = fields::list(node, "`alpn`", EXAMPLE, sink);
    if items.len() > MAX_PROTOCOLS {
        let message = format!("`alpn` can have at most {MAX_PROTOCOLS} protocols");
        sink.error(codes::BAD_VALUE, node.span, message);
        return Vec::new();
    }
    items
        .iter()
        .filter_map(|item| {
            let protocol = &fields::text(item, "a protocol of `alpn`", EXAMPLE, sink)?.text;
            if protocol.is_empty() || protocol.len() > MAX_ALPN {
                let message = format!("a protocol of `alpn` has 1 to {MAX_ALPN} bytes");
                sink.error(codes::BAD_VALUE, item.span, message)
                    .help(format!("for example {EXAMPLE}"));
                return None;
            }
            Some(protocol.clone())
        })
        .collect()
}

fn min_version(fields: &Fields<'_>, sink: &mut DiagnosticSink) -> TlsVersion {
    const KEY: &str = "min_version";
    let Some(node) = fields.get(KEY) else {
        return TlsVersion::default();
    };
    // YAML reads `1.3` as a number and `"1.3"` as a string; both are accepted.
    match &node.value {
        YamlValue::Scalar(scalar) if scalar.text == "1.2" => TlsVersion::V1_2,
        YamlValue::Scalar(scalar) if scalar.text == "1.3" => TlsVersion::V1_3,
        _ => {
            let message = format!("`{KEY}` is \"1.2\" or \"1.3\", not {}", node.describe());
            sink.error(codes::BAD_VALUE, node.span, message)
                .help("older versions are insecure and not supported");
            TlsVersion::default()
        }
    }
}

/// A boolean, false without the key. `None` for a value of another type.
pub(super) fn boolean(fields: &Fields<'_>, key: &str, sink: &mut DiagnosticSink) -> Option<bool> {
    let Some(node) = fields.get(key) else {
        return Some(false);
    };
    if let YamlValue::Scalar(scalar) = &node.value
        && let ScalarKind::Bool(value) = scalar.kind()
    {
        return Some(value);
    }
    fields::wrong_type(
        node,
        &format!("`{key}`"),
        "true or false",
        &format!("`{key}: true`"),
        sink,
    );
    None
}
