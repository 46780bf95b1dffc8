//! `kms_proxy`.

use std::collections::BTreeMap;

use odyn_proto::{KmsEndpoint, KmsEndpointError};

use super::fields::Fields;
use super::services::{ListeningPort, PortUser};
use super::tls::{boolean, file};
use super::{fields, keys};
use crate::codes;
use crate::diagnostic::DiagnosticSink;
use crate::settings::KmsProxySettings;
use crate::yaml::{YamlKey, YamlNode, short};

const ENDPOINTS: &str = "`endpoints: { eu-west-1: kms-fips.eu-west-1.amazonaws.com }`";
/// Longest region that the proxy accepts in a signature.
const MAX_REGION: usize = 32;

pub(super) fn kms_proxy(
    node: &YamlNode,
    listeners: &mut Vec<ListeningPort>,
    sink: &mut DiagnosticSink,
) -> Option<KmsProxySettings> {
    let example = "`kms_proxy: { listen_port: 9999 }`";
    let fields = Fields::open(node, "`kms_proxy`", example, sink)?;
    fields.check_keys(&keys::KMS_PROXY, sink);
    let listen_port = fields.required_port("listen_port", 9999, node.span, sink);
    let endpoints = fields.get("endpoints").filter(|node| !node.is_null());
    let endpoints = endpoints.map_or_else(BTreeMap::new, |node| endpoints_of(node, sink));
    let ca_file = file(&fields, "ca_file", "/etc/kms/ca.pem", sink);
    let require_key_id = boolean(&fields, "require_key_id", sink)?;
    let require_encryption_context = boolean(&fields, "require_encryption_context", sink)?;
    let listen_port = listen_port?;
    listeners.push(ListeningPort {
        port: listen_port,
        user: PortUser::KmsProxy,
        span: fields.span("listen_port"),
    });
    Some(KmsProxySettings {
        listen_port,
        endpoints,
        ca_file: ca_file.map(|file| file.path),
        require_key_id,
        require_encryption_context,
    })
}

fn endpoints_of(node: &YamlNode, sink: &mut DiagnosticSink) -> BTreeMap<String, KmsEndpoint> {
    let Some(fields) = Fields::open(node, "`endpoints`", ENDPOINTS, sink) else {
        return BTreeMap::new();
    };
    let mut endpoints = BTreeMap::new();
    for (region, node) in fields.entries() {
        check_region(region, sink);
        let Some(scalar) = fields::text(node, "an endpoint", ENDPOINTS, sink) else {
            continue;
        };
        match endpoint(&scalar.text, &region.text) {
            Ok(endpoint) => {
                endpoints.insert(region.text.clone(), endpoint);
            }
            Err(problem) => {
                sink.error(problem.code, node.span, problem.message)
                    .help(problem.help);
            }
        }
    }
    endpoints
}

/// Reports a key that is no region: the proxy would never use it.
fn check_region(key: &YamlKey, sink: &mut DiagnosticSink) {
    let text = key.text.as_str();
    if is_region(text) {
        return;
    }
    let message = format!(
        "`{}` is not a key of `endpoints`: it does not have the form of an AWS region",
        short(text)
    );
    let written = text.to_ascii_lowercase().replace('_', "-");
    // `eu-west-1a` is a zone of `eu-west-1`.
    let zone = written.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let help = [written.as_str(), zone]
        .into_iter()
        .find(|near| is_region(near))
        .map(|near| format!("did you mean `{near}`?"))
        .unwrap_or_else(|| format!("the keys are regions, for example {ENDPOINTS}"));
    sink.error(codes::UNKNOWN_KEY, key.span, message).help(help);
}

/// Whether a text has the form of a region such as `us-gov-west-1`.
///
/// Old names of FIPS endpoints such as `fips-us-east-1` count, too. There is no list of regions,
/// for new ones appear faster than releases of this software.
fn is_region(text: &str) -> bool {
    let plain = text
        .strip_prefix("fips-")
        .or_else(|| text.strip_suffix("-fips"))
        .unwrap_or(text);
    let Some((area, number)) = plain.rsplit_once('-') else {
        return false;
    };
    let is_word = |word: &str| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_lowercase());
    text.len() <= MAX_REGION
        && area.split('-').count() >= 2
        && area.split('-').all(is_word)
        && (1..=2).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit())
}

#[derive(Debug)]
struct EndpointProblem {
    code: &'static str,
    message: String,
    help: String,
}

/// Reads an endpoint of KMS, or says what to write in its place.
fn endpoint(text: &str, region: &str) -> Result<KmsEndpoint, EndpointProblem> {
    KmsEndpoint::parse(text).map_err(|error| EndpointProblem {
        code: match error {
            KmsEndpointError::Port => codes::BAD_PORT,
            KmsEndpointError::Address
            | KmsEndpointError::Spelling(_)
            | KmsEndpointError::Name(_) => codes::BAD_NAME,
            _ => codes::BAD_VALUE,
        },
        message: message(&error, text),
        help: help(&error, text, region),
    })
}

/// The error about a text that is quoted, unless it may have a password in it.
fn message(error: &KmsEndpointError, text: &str) -> String {
    let quoted = short(text);
    match error {
        KmsEndpointError::Spaces => format!("the endpoint {quoted:?} has spaces around it"),
        KmsEndpointError::Path => {
            format!("the endpoint {quoted:?} has more than a name and a port")
        }
        KmsEndpointError::Address => {
            format!("the endpoint {quoted:?} is an address: certificates have names")
        }
        KmsEndpointError::Port => {
            format!("the port of the endpoint {quoted:?} is not 1 to 65535")
        }
        KmsEndpointError::Spelling(_) => {
            format!("the endpoint {quoted:?} is not written as certificates have it")
        }
        KmsEndpointError::Name(error) => format!("the endpoint {quoted:?} is no name: {error}"),
        other => other.to_string(),
    }
}

fn help(error: &KmsEndpointError, text: &str, region: &str) -> String {
    let (_, rest) = text.split_once("://").unwrap_or(("", text));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match error {
        KmsEndpointError::Spaces => format!("write `{}`", short(text.trim())),
        KmsEndpointError::PlainHttp | KmsEndpointError::Scheme => {
            format!("write `https://{}`, or leave the scheme out", short(rest))
        }
        KmsEndpointError::Path => format!("write `{}`", short(host)),
        KmsEndpointError::Port => {
            let name = host.split(':').next().unwrap_or_default();
            format!("write `{}` for port 443", short(name))
        }
        KmsEndpointError::Spelling(name) => format!("write `{name}`"),
        _ => format!("for example `{region}: kms-fips.{region}.amazonaws.com`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_a_form() {
        for region in [
            "eu-west-1",
            "us-gov-west-1",
            "us-isob-east-1",
            "eusc-de-east-1",
            "ap-southeast-12",
            "fips-us-east-1",
            "us-east-1-fips",
        ] {
            assert!(is_region(region), "{region}");
        }
        for other in [
            "",
            "-",
            "fips-",
            "kms",
            "eu-west",
            "eu-1",
            "eu-west-1a",
            "EU-west-1",
            "eu_west_1",
            "eu--west-1",
            "eu-west-",
            "eu-west-123",
            "*",
            "eu-west-١",
        ] {
            assert!(!is_region(other), "{other}");
        }
        let long = format!("eu-{}-1", "west".repeat(10));
        assert!(!is_region(&long));
    }

    #[test]
    fn endpoints_are_names_with_or_without_a_port() {
        for fine in [
            "kms",
            "KMS-fips.eu-west-1.amazonaws.com",
            "vpce-1.kms.eu-west-1.vpce.amazonaws.com",
            "kms.example:8443",
            "https://kms.example",
            "https://kms.example:8443/",
            "kms.example/",
        ] {
            assert!(endpoint(fine, "eu-west-1").is_ok(), "{fine}");
        }
        for (wrong, code, help) in [
            ("", "bad-name", "for example `eu-west-1: kms-fips"),
            ("https://", "bad-name", "for example"),
            (" kms.example", "bad-value", "write `kms.example`"),
            (
                "http://kms.example:1",
                "bad-value",
                "write `https://kms.example:1`",
            ),
            ("HTTPS://kms.example", "bad-value", "`https://kms.example`"),
            ("tls://kms.example", "bad-value", "leave the scheme out"),
            (
                "https://kms.example/path",
                "bad-value",
                "write `kms.example`",
            ),
            ("kms.example?x", "bad-value", "write `kms.example`"),
            (
                "https://me:secret@kms.example/path",
                "bad-value",
                "for example",
            ),
            (
                "kms.example:",
                "bad-port",
                "write `kms.example` for port 443",
            ),
            ("kms.example:0", "bad-port", "443"),
            ("kms.example:+1", "bad-port", "443"),
            ("kms.example:65536", "bad-port", "443"),
            ("[::1]:443", "bad-name", "for example"),
            ("2001:db8::1", "bad-name", "for example"),
            ("192.0.2.1", "bad-name", "for example"),
            ("kms example", "bad-name", "for example"),
            ("*.example", "bad-name", "for example"),
            ("kms..example", "bad-name", "for example"),
            ("kms.example.", "bad-name", "write `kms.example`"),
            ("kms.exämple", "bad-name", "write `kms.xn--exmple-cua`"),
        ] {
            let problem = endpoint(wrong, "eu-west-1").expect_err(wrong);
            assert_eq!(problem.code, code, "{wrong}: {problem:?}");
            assert!(problem.help.contains(help), "{wrong}: {problem:?}");
        }
    }
}
