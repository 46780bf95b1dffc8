//! One mapping: the listening socket, for as long as there is a guest for it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use odyn_link::{End, FlowLimit, RunId, reverse::Arrival};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{
    client::Client,
    guests::{Guest, Guests},
    mapping::Mapping,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// First pause after the socket could not be bound; doubled at each failure.
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause after the socket could not be bound.
const LONGEST_BIND_PAUSE: Duration = Duration::from_secs(5);

/// Pause after `accept()` failed, which it does when there are no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The task of a mapping.
pub(super) struct Listening {
    mapping: Mapping,
    guests: Arc<Guests>,
    flows: Option<Arc<FlowLimit>>,
    clients: TaskTracker,
    /// Clients that were cut.
    cut: Arc<AtomicUsize>,
    /// The guest that gets the clients.
    holder: watch::Sender<Option<Arc<Guest>>>,
    socket: Option<TcpListener>,
    /// Why the socket could not be bound, as it was said last.
    bind_error: String,
    bind_pause: Duration,
    /// The guest of which it was said last that it does not get the clients.
    other: Option<RunId>,
}

impl Listening {
    pub(super) fn new(
        mapping: Mapping,
        guests: Arc<Guests>,
        flows: Option<Arc<FlowLimit>>,
        clients: TaskTracker,
        cut: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            mapping,
            guests,
            flows,
            clients,
            cut,
            holder: watch::Sender::new(None),
            socket: None,
            bind_error: String::new(),
            bind_pause: BIND_PAUSE,
            other: None,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut changes = self.guests.changes();
        self.choose();
        loop {
            let binds_again = self.socket.is_none() && self.holder.borrow().is_some();
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => self.choose(),
                    Err(_) => return,
                },
                accepted = accept(self.socket.as_ref()) => match accepted {
                    Ok((socket, client)) => self.serve(socket, client),
                    Err(error) => {
                        warn!(mapping = %self.mapping, %error, "can't accept clients");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = sleep(self.bind_pause), if binds_again => {
                    self.bind_pause = (self.bind_pause * 2).min(LONGEST_BIND_PAUSE);
                    self.bind();
                }
            }
        }
    }

    /// Finds the guest for the clients, and binds or closes the socket.
    fn choose(&mut self) {
        let holder = self.holder.borrow().clone();
        let (chosen, other) = self.guests.choose(&self.mapping, holder.as_ref());
        if let Some(other) = other
            && self.other != Some(other.identity.run)
        {
            self.other = Some(other.identity.run);
            warn!(
                mapping = %self.mapping,
                guest = %other,
                peer = %other.peer,
                "another guest has these clients already: it waits for its turn"
            );
        }
        let is_same = |a: &Option<Arc<Guest>>, b: &Option<Arc<Guest>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        if !is_same(&holder, &chosen) {
            if let Some(guest) = &chosen {
                info!(mapping = %self.mapping, %guest, peer = %guest.peer, "clients go to guest");
            }
            self.holder.send_replace(chosen.clone());
        }
        match (&chosen, &self.socket) {
            (None, Some(_)) => {
                self.socket = None;
                info!(mapping = %self.mapping, "not listening for clients any more");
            }
            (Some(_), None) => self.bind(),
            _ => {}
        }
        if chosen.is_none() {
            self.bind_pause = BIND_PAUSE;
            self.bind_error.clear();
        }
    }

    fn bind(&mut self) {
        match bind(self.mapping.bind) {
            Ok(socket) => {
                info!(mapping = %self.mapping, "listening for clients");
                self.socket = Some(socket);
                self.bind_pause = BIND_PAUSE;
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

    fn serve(&self, socket: TcpStream, address: SocketAddr) {
        let permit = self.flows.as_ref().map(FlowLimit::acquire);
        if let Some(None) = permit {
            debug!(mapping = %self.mapping, client = %address, "too many flows: client reset");
            let _ = socket.set_zero_linger();
            return;
        }
        let client = Client {
            arrival: Arrival::new(socket, address),
            address,
            port: self.mapping.port,
            holder: self.holder.subscribe(),
            _permit: permit.flatten(),
        };
        let cut = Arc::clone(&self.cut);
        self.clients.spawn(async move {
            if let Some(End::Cut { .. }) = client.serve().await {
                cut.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

async fn accept(socket: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match socket {
        Some(socket) => socket.accept().await,
        None => std::future::pending().await,
    }
}

/// A listening socket. One for IPv6 takes IPv6 only, so that `0.0.0.0` and `[::]` can both be
/// given, on every machine alike.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
    TcpListener::from_std(socket.into())
}
