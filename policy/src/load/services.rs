//! Every section of the file except `egress`.

use std::num::NonZeroU16;
use std::time::Duration;

use super::fields::Fields;
use super::kms::kms_proxy;
use super::tls::tls;
use super::{fields, keys};
use crate::codes;
use crate::diagnostic::{DiagnosticSink, Span};
use crate::settings::{
    ApiSettings, DnsSettings, IngressSettings, PolicySettings, ProxyProtocol, ShutdownSettings,
};
use crate::yaml::{YamlNode, short};

/// Longest time that a DNS answer may be kept.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest time that a shutdown may take.
const MAX_DRAIN: Duration = Duration::from_secs(3600);
/// How long a client waits for the app by default.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that a client can wait: the host waits a little longer.
const MAX_WAIT_TIMEOUT: Duration = Duration::from_secs(300);

/// A port that the file opens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListeningPort {
    pub(crate) port: NonZeroU16,
    pub(crate) user: PortUser,
    /// The port's place in the file.
    pub(crate) span: Span,
}

/// The use of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortUser {
    /// `ingress[].listen_port`, on the host.
    Ingress,
    /// `ingress[].target_port`, the app in the guest.
    App,
    /// `kms_proxy.listen_port`, in the guest.
    KmsProxy,
    /// `api.listen_port`, in the guest.
    Api,
}

pub(super) fn read(
    fields: &Fields<'_>,
    settings: &mut PolicySettings,
    sink: &mut DiagnosticSink,
) -> Vec<ListeningPort> {
    let mut listeners = Vec::new();
    if let Some(node) = section(fields, "dns") {
        settings.dns = dns(node, sink);
    }
    if let Some(node) = section(fields, "shutdown") {
        settings.shutdown = shutdown(node, sink);
    }
    if let Some(node) = fields.get("ingress") {
        settings.ingress = fields::list(
            node,
            "`ingress`",
            "`ingress: [{ listen_port: 8443 }]`",
            sink,
        )
        .iter()
        .filter_map(|item| ingress(item, &mut listeners, sink))
        .collect();
    }
    if let Some(node) = section(fields, "kms_proxy") {
        settings.kms_proxy = kms_proxy(node, &mut listeners, sink);
    }
    if let Some(node) = section(fields, "api") {
        settings.api = api(node, &mut listeners, sink);
    }
    listeners
}

/// A section, if it has content.
fn section<'a>(fields: &Fields<'a>, key: &str) -> Option<&'a YamlNode> {
    fields.get(key).filter(|node| !node.is_null())
}

fn dns(node: &YamlNode, sink: &mut DiagnosticSink) -> DnsSettings {
    let mut dns = DnsSettings::default();
    if let Some(fields) = Fields::open(node, "`dns`", "`dns: { ttl: 30s }`", sink) {
        fields.check_keys(&keys::DNS, sink);
        if let Some(ttl) = fields.duration("ttl", MAX_TTL, sink) {
            dns.ttl = ttl;
        }
    }
    dns
}

fn shutdown(node: &YamlNode, sink: &mut DiagnosticSink) -> ShutdownSettings {
    let mut shutdown = ShutdownSettings::default();
    let example = "`shutdown: { drain_timeout: 30s }`";
    if let Some(fields) = Fields::open(node, "`shutdown`", example, sink) {
        fields.check_keys(&keys::SHUTDOWN, sink);
        if let Some(timeout) = fields.duration("drain_timeout", MAX_DRAIN, sink) {
            shutdown.drain_timeout = timeout;
        }
    }
    shutdown
}

fn ingress(
    node: &YamlNode,
    listeners: &mut Vec<ListeningPort>,
    sink: &mut DiagnosticSink,
) -> Option<IngressSettings> {
    let fields = Fields::open(node, "an entry of `ingress`", "`- listen_port: 8443`", sink)?;
    fields.check_keys(&keys::INGRESS, sink);
    let listen_port = fields.required_port("listen_port", 8443, node.span, sink);
    let target_port = fields.port("target_port", 8443, sink);
    let wait_timeout = fields.duration("wait_timeout", MAX_WAIT_TIMEOUT, sink);
    let tls = section(&fields, "tls").and_then(|node| tls(node, sink));
    let proxy_protocol = proxy_protocol(&fields, sink);
    let listen_port = listen_port?;
    listeners.push(ListeningPort {
        port: listen_port,
        user: PortUser::Ingress,
        span: fields.span("listen_port"),
    });
    let target_key = match target_port {
        Some(_) => "target_port",
        None => "listen_port",
    };
    let target_port = target_port.unwrap_or(listen_port);
    listeners.push(ListeningPort {
        port: target_port,
        user: PortUser::App,
        span: fields.span(target_key),
    });
    Some(IngressSettings {
        listen_port,
        target_port,
        wait_timeout: wait_timeout.unwrap_or(WAIT_TIMEOUT),
        tls,
        proxy_protocol,
    })
}

fn proxy_protocol(fields: &Fields<'_>, sink: &mut DiagnosticSink) -> Option<ProxyProtocol> {
    match fields.string("proxy_protocol", "v2", sink)?.as_str() {
        "v1" => Some(ProxyProtocol::V1),
        "v2" => Some(ProxyProtocol::V2),
        other => {
            let message = format!("`proxy_protocol` is v1 or v2, not {:?}", short(other));
            sink.error(codes::BAD_VALUE, fields.span("proxy_protocol"), message)
                .help("leave the key out if the app does not expect the header");
            None
        }
    }
}

fn api(
    node: &YamlNode,
    listeners: &mut Vec<ListeningPort>,
    sink: &mut DiagnosticSink,
) -> Option<ApiSettings> {
    let fields = Fields::open(node, "`api`", "`api: { listen_port: 9998 }`", sink)?;
    fields.check_keys(&keys::API, sink);
    let listen_port = fields.required_port("listen_port", 9998, node.span, sink)?;
    listeners.push(ListeningPort {
        port: listen_port,
        user: PortUser::Api,
        span: fields.span("listen_port"),
    });
    Some(ApiSettings { listen_port })
}
