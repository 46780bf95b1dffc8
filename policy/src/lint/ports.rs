//! Ports on which two listeners would collide.

use std::collections::HashMap;
use std::num::NonZeroU16;

use crate::codes;
use crate::diagnostic::{DiagnosticSink, Span};
use crate::load::services::{ListeningPort, PortUser};

impl PortUser {
    fn describe(self) -> &'static str {
        match self {
            Self::Ingress => "another entry of `ingress`",
            Self::App => "the app's own port (an `ingress` entry)",
            Self::KmsProxy => "`kms_proxy`",
            Self::Api => "`api`",
        }
    }

    /// Whether two ports are on the same machine: the host's, or the guest's.
    fn is_on_host(self) -> bool {
        self == Self::Ingress
    }
}

pub(super) fn run(listeners: &[ListeningPort], sink: &mut DiagnosticSink) {
    let mut seen: HashMap<(bool, NonZeroU16), (PortUser, Span)> = HashMap::new();
    for ListeningPort { port, user, span } in listeners.iter().copied() {
        let (first, first_span) = *seen
            .entry((user.is_on_host(), port))
            .or_insert((user, span));
        // Two ingress ports may lead to the same port of the app.
        if first_span == span || (first == PortUser::App && user == PortUser::App) {
            continue;
        }
        let place = if user.is_on_host() {
            "the host"
        } else {
            "the guest"
        };
        let message = format!(
            "port {port} of {place} is already used by {}",
            first.describe()
        );
        let draft = sink.warning(codes::PORT_COLLISION, span, message);
        let draft = match user {
            PortUser::KmsProxy | PortUser::Api => draft.help("choose another `listen_port`"),
            PortUser::Ingress => draft.help("choose another `listen_port`; `target_port` can stay"),
            PortUser::App => draft.help("choose another `target_port`"),
        };
        draft.related(first_span, "first used here");
    }
}
