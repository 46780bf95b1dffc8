//! Everything in the file that is not egress.

use std::num::NonZeroU16;
use std::time::Duration;

use super::fields;
use super::fields::Fields;
use super::kms::kms_proxy;
use super::tls::tls;
use crate::codes;
use crate::diagnostic::{Sink, Span};
use crate::settings::{Api, Dns, Ingress, ProxyProtocol, Settings, Shutdown};
use crate::yaml::{Node, short};

/// Longest time that a DNS answer may be kept.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest time that a shutdown may take.
const MAX_DRAIN: Duration = Duration::from_secs(3600);
/// How long a client waits for the program, unless told.
const WAIT: Duration = Duration::from_secs(10);
/// Longest time that it can be told to wait: the host half waits a little longer.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// A port of the file on which something listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    pub(crate) port: NonZeroU16,
    pub(crate) user: User,
    /// The port's place in the file.
    pub(crate) span: Span,
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// `ingress[].listen_port`, on the host.
    Ingress,
    /// `ingress[].target_port`, the program in the guest.
    Program,
    /// `kms_proxy.listen_port`, in the guest.
    KmsProxy,
    /// `api.listen_port`, in the guest.
    Api,
}

pub(super) fn read(fields: &Fields<'_>, settings: &mut Settings, sink: &mut Sink) -> Vec<Listener> {
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

/// A section; one without content is as good as none.
fn section<'a>(fields: &Fields<'a>, key: &str) -> Option<&'a Node> {
    fields.get(key).filter(|node| !node.is_null())
}

fn dns(node: &Node, sink: &mut Sink) -> Dns {
    let mut dns = Dns::default();
    if let Some(fields) = Fields::open(node, "`dns`", "`dns: { ttl: 30s }`", sink) {
        fields.check_keys(&["ttl"], &[], sink);
        if let Some(ttl) = fields.duration("ttl", MAX_TTL, sink) {
            dns.ttl = ttl;
        }
    }
    dns
}

fn shutdown(node: &Node, sink: &mut Sink) -> Shutdown {
    let mut shutdown = Shutdown::default();
    let example = "`shutdown: { drain_timeout: 30s }`";
    if let Some(fields) = Fields::open(node, "`shutdown`", example, sink) {
        fields.check_keys(&["drain_timeout"], &[], sink);
        if let Some(timeout) = fields.duration("drain_timeout", MAX_DRAIN, sink) {
            shutdown.drain_timeout = timeout;
        }
    }
    shutdown
}

fn ingress(node: &Node, listeners: &mut Vec<Listener>, sink: &mut Sink) -> Option<Ingress> {
    let fields = Fields::open(node, "an entry of `ingress`", "`- listen_port: 8443`", sink)?;
    let keys = [
        "listen_port",
        "target_port",
        "wait_timeout",
        "tls",
        "proxy_protocol",
    ];
    fields.check_keys(&keys, &[], sink);
    let listen_port = fields.required_port("listen_port", 8443, node.span, sink);
    let target_port = fields.port("target_port", 8443, sink);
    let wait_timeout = fields.duration("wait_timeout", MAX_WAIT, sink);
    let tls = section(&fields, "tls").and_then(|node| tls(node, sink));
    let proxy_protocol = proxy_protocol(&fields, sink);
    let listen_port = listen_port?;
    listeners.push(Listener {
        port: listen_port,
        user: User::Ingress,
        span: fields.span("listen_port"),
    });
    let target_key = match target_port {
        Some(_) => "target_port",
        None => "listen_port",
    };
    let target_port = target_port.unwrap_or(listen_port);
    listeners.push(Listener {
        port: target_port,
        user: User::Program,
        span: fields.span(target_key),
    });
    Some(Ingress {
        listen_port,
        target_port,
        wait_timeout: wait_timeout.unwrap_or(WAIT),
        tls,
        proxy_protocol,
    })
}

fn proxy_protocol(fields: &Fields<'_>, sink: &mut Sink) -> Option<ProxyProtocol> {
    match fields.string("proxy_protocol", "v2", sink)?.as_str() {
        "v1" => Some(ProxyProtocol::V1),
        "v2" => Some(ProxyProtocol::V2),
        other => {
            let message = format!("`proxy_protocol` is v1 or v2, not {:?}", short(other));
            sink.error(codes::BAD_VALUE, fields.span("proxy_protocol"), message)
                .help("leave the key out if the program does not expect the header");
            None
        }
    }
}

fn api(node: &Node, listeners: &mut Vec<Listener>, sink: &mut Sink) -> Option<Api> {
    let fields = Fields::open(node, "`api`", "`api: { listen_port: 9998 }`", sink)?;
    fields.check_keys(&["listen_port"], &[], sink);
    let listen_port = fields.required_port("listen_port", 9998, node.span, sink)?;
    listeners.push(Listener {
        port: listen_port,
        user: User::Api,
        span: fields.span("listen_port"),
    });
    Some(Api { listen_port })
}
