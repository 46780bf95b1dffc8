//! Accepts connections of guests on one listener, and serves each.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use odyn_link::drain::Watch;

use odyn_link::{Listener, Peer, Preamble, Transport, read_preamble, serve};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{MAX_LINKS, Outer};
use crate::ingress::HostIngress;

/// Wait after `accept()` failed, which it does when there are no more file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Accepts connections of guests on one listener.
pub(super) struct LinkAcceptor {
    pub(super) outer: Arc<Outer>,
    pub(super) ingress: Arc<HostIngress>,
    pub(super) links: TaskTracker,
    pub(super) drain: Watch,
}

impl LinkAcceptor {
    pub(super) async fn accept(self, listener: Listener) {
        let endpoint = listener.endpoint().to_string();
        info!(endpoint, "listening");
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.drain.draining() => break,
                accepted = listener.accept(&self.outer.server.tuning) => accepted,
            };
            match accepted {
                Ok((transport, peer)) => self.serve(transport, peer),
                Err(error) => self.pause(&endpoint, &error).await,
            }
        }
        info!(endpoint, "not listening any more");
    }

    async fn pause(&self, endpoint: &str, error: &io::Error) {
        warn!(endpoint, %error, "can't accept");
        tokio::select! {
            () = self.drain.draining() => {}
            () = sleep(ACCEPT_RETRY_INTERVAL) => {}
        }
    }

    fn serve(&self, transport: Transport, peer: Peer) {
        if !is_wanted(&peer, self.outer.only_pid) {
            warn!(%peer, "not the process that may connect: turned away");
            return;
        }
        let Ok(permit) = Arc::clone(&self.outer.links).try_acquire_owned() else {
            warn!(%peer, max = MAX_LINKS, "too many connections: turned away");
            return;
        };
        let (outer, ingress) = (Arc::clone(&self.outer), Arc::clone(&self.ingress));
        let drain = self.drain.clone();
        self.links.spawn(async move {
            let present = outer.runtime_config.connected_guests().enter(peer);
            let handler = Arc::clone(&outer.handler);
            let server = outer.server.clone();
            let limit = server.tuning.handshake_timeout;
            let opened = read_preamble(transport, limit).await;
            if let Ok(Preamble::Lane(key, transport)) = opened {
                let served = outer.lanes.serve(transport, key, &server.tuning).await;
                return debug!(%peer, ?served, "lane");
            }
            // A guest has several connections: one line for all of them.
            match present.is_first() {
                true => info!(%peer, "guest connected"),
                false => debug!(%peer, "another connection of a guest"),
            }
            let served = match opened {
                Ok(Preamble::Forward(transport)) => {
                    serve(transport, peer, handler, server, drain).await
                }
                Ok(Preamble::Reversed(transport)) => ingress.serve(transport, peer).await,
                Ok(Preamble::Lane(..)) => Ok(()),
                Err(error) => Err(error),
            };
            let is_last = present.leave();
            match served {
                Ok(()) if is_last => info!(%peer, "guest disconnected"),
                Ok(()) => debug!(%peer, "one connection of a guest has ended"),
                Err(error) => warn!(%peer, %error, "connection of a guest ended"),
            }
            drop(permit);
        });
    }
}

fn is_wanted(peer: &Peer, only_pid: Option<i32>) -> bool {
    match (only_pid, peer) {
        (None, _) => true,
        (Some(wanted), Peer::Unix { pid, .. }) => *pid == Some(wanted),
        (Some(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_process_is_served() {
        let unix = |pid| Peer::Unix { pid, uid: 0 };
        assert!(is_wanted(&unix(None), None));
        assert!(is_wanted(&Peer::Vsock { cid: 3 }, None));
        assert!(is_wanted(&unix(Some(7)), Some(7)));
        assert!(!is_wanted(&unix(Some(8)), Some(7)));
        assert!(!is_wanted(&unix(None), Some(7)));
        assert!(!is_wanted(&Peer::Vsock { cid: 7 }, Some(7)));
    }
}
