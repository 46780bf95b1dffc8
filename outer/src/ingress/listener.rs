//! One mapping: its listening socket, which is open while there is a guest for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use odyn_link::FlowLimit;
use odyn_proto::RunId;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::GUEST_RETURN_TIMEOUT;
use super::admission::Admission;
use super::client::{IngressClient, canonical};
use super::guests::{IngressGuest, IngressGuests};
use super::inherited_sockets::InheritedSockets;
use super::status::Listeners;
use crate::rules::{Bind, Mapping};
use crate::runtime_config::RuntimeConfig;

/// Most connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// First wait after a failed bind; doubled at each failure.
const MIN_BIND_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Longest wait after a failed bind.
const MAX_BIND_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Wait after `accept()` failed, which it does when there are no more file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What all listeners share.
#[derive(Clone)]
pub(super) struct ListenerContext {
    pub(super) runtime_config: RuntimeConfig,
    pub(super) guests: Arc<IngressGuests>,
    /// The limit for the flows of all guests, egress included.
    pub(super) flows: Option<Arc<FlowLimit>>,
    pub(super) clients: TaskTracker,
    /// Tasks of listeners.
    pub(super) listening: TaskTracker,
    /// Clients that are not with their guests yet.
    pub(super) opening: TaskTracker,
    /// The state of each listener, for the operator.
    pub(super) listeners: Listeners,
    pub(super) inherited: InheritedSockets,
}

/// The task of a mapping.
pub(super) struct MappingListener {
    mapping: Mapping,
    common: ListenerContext,
    admission: Admission,
    /// The guest that gets the clients.
    holder: watch::Sender<Option<Arc<IngressGuest>>>,
    socket: Option<TcpListener>,
    /// Whether the socket is the service manager's, which stays open.
    is_inherited: bool,
    /// Until when clients wait in the socket while there is no guest.
    wait_until: Instant,
    /// The last bind error that was logged.
    bind_error: String,
    bind_retry_interval: Duration,
    /// The last guest that was logged as waiting for these clients.
    other: Option<RunId>,
}

impl MappingListener {
    pub(super) fn new(mapping: Mapping, common: ListenerContext) -> Self {
        Self {
            mapping,
            common,
            admission: Admission::default(),
            holder: watch::Sender::new(None),
            socket: None,
            is_inherited: false,
            wait_until: Instant::now() + GUEST_RETURN_TIMEOUT,
            bind_error: String::new(),
            bind_retry_interval: MIN_BIND_RETRY_INTERVAL,
            other: None,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut changes = self.common.guests.changes();
        // A socket of the service manager accepts clients from the start: they wait for a guest.
        self.adopt();
        self.choose();
        loop {
            let is_alone = self.holder.borrow().is_none();
            let binds_again = self.socket.is_none() && !is_alone;
            let waits = is_alone && Instant::now() < self.wait_until;
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => self.choose(),
                    Err(_) => return,
                },
                () = sleep_until(self.wait_until.into()), if waits => {}
                accepted = accept(self.socket.as_ref()), if !waits => match accepted {
                    Ok((socket, client)) => self.serve(socket, client),
                    Err(error) => {
                        warn!(mapping = %self.mapping, %error, "can't accept clients");
                        sleep(ACCEPT_RETRY_INTERVAL).await;
                    }
                },
                () = sleep(self.bind_retry_interval), if binds_again => {
                    self.bind_retry_interval = (self.bind_retry_interval * 2).min(MAX_BIND_RETRY_INTERVAL);
                    self.bind();
                    self.publish();
                }
            }
        }
    }

    /// Finds the guest for the clients, and binds or closes the socket.
    fn choose(&mut self) {
        let holder = self.holder.borrow().clone();
        let (chosen, other) = self.common.guests.choose(&self.mapping, holder.as_ref());
        if let Some(other) = other
            && self.other != Some(other.identity.run)
        {
            self.other = Some(other.identity.run);
            warn!(
                mapping = %self.mapping,
                guest = %other,
                peer = %other.peer,
                "another guest has these clients: this one waits until that is gone"
            );
        }
        let is_same = |a: &Option<Arc<IngressGuest>>, b: &Option<Arc<IngressGuest>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        if !is_same(&holder, &chosen) {
            if let Some(guest) = &chosen {
                info!(mapping = %self.mapping, %guest, peer = %guest.peer, "clients go to guest");
            }
            self.holder.send_replace(chosen.clone());
            self.wait_until = Instant::now() + GUEST_RETURN_TIMEOUT;
        }
        match (&chosen, &self.socket) {
            (None, Some(_)) if !self.is_inherited => {
                self.socket = None;
                info!(mapping = %self.mapping, "not listening for clients any more");
            }
            (Some(_), None) => self.bind(),
            _ => {}
        }
        if chosen.is_none() {
            self.bind_retry_interval = MIN_BIND_RETRY_INTERVAL;
            self.bind_error.clear();
        }
        self.publish();
    }

    /// Publishes the state of the listener.
    fn publish(&self) {
        self.common.listeners.update(
            self.mapping.to_string(),
            self.holder.borrow().clone(),
            self.socket.is_some(),
            &self.bind_error,
            &self.admission,
        );
    }

    /// Uses the socket of the service manager, if there is one for this mapping.
    fn adopt(&mut self) {
        let inherited = match &self.mapping.bind {
            Bind::Address(address) => self.common.inherited.at(*address),
            Bind::Named(name) => self.common.inherited.named(name),
        };
        match inherited.map(|socket| socket.and_then(TcpListener::from_std)) {
            Some(Ok(socket)) => {
                info!(mapping = %self.mapping, "listening at a socket of the service manager");
                self.socket = Some(socket);
                self.is_inherited = true;
            }
            Some(Err(error)) => {
                warn!(mapping = %self.mapping, %error, "a socket of the service manager can't be used");
            }
            None => {}
        }
    }

    fn bind(&mut self) {
        match bind(&self.mapping.bind) {
            Ok(socket) => {
                info!(mapping = %self.mapping, "listening for clients");
                self.socket = Some(socket);
                self.bind_retry_interval = MIN_BIND_RETRY_INTERVAL;
                self.bind_error.clear();
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.bind_error {
                    warn!(mapping = %self.mapping, error, "can't listen for clients: trying again");
                    self.bind_error = error;
                }
            }
        }
    }

    fn serve(&self, socket: TcpStream, peer: SocketAddr) {
        let peer = canonical(peer);
        let rules = self.common.runtime_config.rules().clients.clone();
        let admitted = match self.admission.arrive(&rules, Instant::now()) {
            Ok(admitted) => admitted,
            Err(why) => {
                debug!(mapping = %self.mapping, client = %peer, %why, "client reset");
                let _ = socket.set_zero_linger();
                return;
            }
        };
        let permit = self.common.flows.as_ref().map(FlowLimit::acquire);
        if let Some(None) = permit {
            debug!(mapping = %self.mapping, client = %peer, "too many flows: client reset");
            self.admission.refuse();
            let _ = socket.set_zero_linger();
            return;
        }
        let client = IngressClient {
            peer,
            rules,
            admitted,
            port: self.mapping.port,
            holder: self.holder.subscribe(),
            opening: Some(self.common.opening.token()),
            _permit: permit.flatten(),
        };
        let served = self.common.clients.track_future(client.serve(socket));
        match &*self.holder.borrow() {
            Some(guest) => guest.client.carry(served),
            None => drop(tokio::spawn(served)),
        }
    }
}

impl Drop for MappingListener {
    fn drop(&mut self) {
        self.common.listeners.remove(&self.mapping.to_string());
    }
}

async fn accept(socket: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match socket {
        Some(socket) => socket.accept().await,
        None => std::future::pending().await,
    }
}

/// Opens the socket of a mapping.
fn bind(at: &Bind) -> io::Result<TcpListener> {
    match at {
        Bind::Address(address) => TcpListener::from_std(socket_at(*address)?),
        Bind::Named(_) => {
            let message = "the service manager gave no socket of this name";
            Err(io::Error::new(io::ErrorKind::NotFound, message))
        }
    }
}

/// Opens a listening socket. An IPv6 socket takes IPv6 only.
///
/// So `0.0.0.0` and `[::]` can be given together, whatever the system's default is.
pub(super) fn socket_at(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
