//! Ports that two things are to listen on.

use std::collections::HashMap;
use std::num::NonZeroU16;

use crate::codes;
use crate::diagnostic::{Sink, Span};
use crate::load::services::{Listener, User};

impl User {
    fn describe(self) -> &'static str {
        match self {
            Self::Ingress => "another entry of `ingress`",
            Self::Program => "the program's own port (an `ingress` entry)",
            Self::KmsProxy => "`kms_proxy`",
            Self::Api => "`api`",
        }
    }

    /// Ports of the host and of the guest are apart.
    fn is_on_host(self) -> bool {
        self == Self::Ingress
    }
}

pub(super) fn run(listeners: &[Listener], sink: &mut Sink) {
    let mut seen: HashMap<(bool, NonZeroU16), (User, Span)> = HashMap::new();
    for Listener { port, user, span } in listeners.iter().copied() {
        let (first, first_span) = *seen
            .entry((user.is_on_host(), port))
            .or_insert((user, span));
        // Two ingress ports may lead to the same port of the program.
        if first_span == span || (first == User::Program && user == User::Program) {
            continue;
        }
        let place = if user.is_on_host() {
            "the host"
        } else {
            "the guest"
        };
        let message = format!(
            "port {port} of {place} is taken by {} already",
            first.describe()
        );
        let draft = sink.warning(codes::PORT_COLLISION, span, message);
        let draft = match user {
            User::KmsProxy | User::Api => draft.help("choose another `listen_port`"),
            User::Ingress => draft.help("choose another `listen_port`; `target_port` can stay"),
            User::Program => draft.help("choose another `target_port`"),
        };
        draft.related(first_span, "first used here");
    }
}
