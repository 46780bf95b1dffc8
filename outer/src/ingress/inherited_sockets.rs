//! Listening sockets that are opened before the listeners.
//!
//! The service manager may hand them over (`systemd.socket(5)`, `sd_listen_fds(3)`). They stay open
//! while this process is replaced, so that clients wait in them instead of being refused. Or they
//! are bound first of all, so that a caller learns at once that an address is taken.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use listenfd::ListenFd;
use tracing::warn;

use super::listener::socket_at;

/// The listening sockets of this process.
#[derive(Debug, Clone, Default)]
pub struct InheritedSockets(Arc<Vec<InheritedSocket>>);

#[derive(Debug)]
struct InheritedSocket {
    name: String,
    address: SocketAddr,
    socket: TcpListener,
}

impl InheritedSockets {
    /// Takes the sockets of LISTEN_FDS, with the names of LISTEN_FDNAMES.
    ///
    /// Sockets that do not listen on TCP are logged and left alone. To be called once, before
    /// anything else opens files.
    pub fn take(names: Option<&str>) -> Self {
        let mut descriptors = ListenFd::from_env();
        let mut names = names.into_iter().flat_map(|names| names.split(':'));
        let mut passed = Vec::new();
        for at in 0..descriptors.len() {
            let name = names.next().unwrap_or("unknown").to_owned();
            match Self::one(&mut descriptors, at) {
                Ok((address, socket)) => passed.push(InheritedSocket {
                    name,
                    address,
                    socket,
                }),
                Err(error) => warn!(name, %error, "a socket of the service manager is not used"),
            }
        }
        Self(Arc::new(passed))
    }

    /// Binds and listens at these addresses.
    ///
    /// # Errors
    /// The first address that can't be bound, and why.
    pub fn bind(
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let bound = addresses.into_iter().map(|address| {
            let socket = socket_at(address).map_err(|error| (address, error))?;
            Ok(InheritedSocket {
                name: address.to_string(),
                address,
                socket,
            })
        });
        Ok(Self(Arc::new(bound.collect::<Result<_, _>>()?)))
    }

    fn one(descriptors: &mut ListenFd, at: usize) -> io::Result<(SocketAddr, TcpListener)> {
        let socket = descriptors
            .take_tcp_listener(at)?
            .ok_or_else(|| io::Error::other("taken already"))?;
        socket.set_nonblocking(true)?;
        Ok((socket.local_addr()?, socket))
    }

    /// The socket with this name. All sockets of a unit have the same name: several are an error.
    pub(super) fn named(&self, name: &str) -> Option<io::Result<TcpListener>> {
        if self.0.iter().filter(|passed| passed.name == name).count() > 1 {
            let message = "several have this name: give their addresses instead";
            return Some(Err(io::Error::other(message)));
        }
        self.find(|passed| passed.name == name)
    }

    /// The socket that listens at exactly this address.
    pub(super) fn at(&self, address: SocketAddr) -> Option<io::Result<TcpListener>> {
        self.find(|passed| passed.address == address)
    }

    /// Duplicates a socket: the original stays open.
    fn find(&self, is_it: impl Fn(&InheritedSocket) -> bool) -> Option<io::Result<TcpListener>> {
        let found = self.0.iter().find(|passed| is_it(passed));
        found.map(|passed| passed.socket.try_clone())
    }

    /// Names and addresses of the sockets that no mapping uses.
    pub(super) fn unused(&self, is_used: impl Fn(&str, SocketAddr) -> bool) -> Vec<String> {
        let unused = self
            .0
            .iter()
            .filter(|passed| !is_used(&passed.name, passed.address));
        unused
            .map(|passed| format!("{} ({})", passed.name, passed.address))
            .collect()
    }
}
