//! What is between the two halves of a contender: a Unix socket, or AF_VSOCK by its loopback.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::libc::{VMADDR_CID_LOCAL, VMADDR_PORT_ANY};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, bind, connect, socket as new_socket,
};

use super::text;

/// The transport of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Link {
    /// Unix sockets.
    Unix,
    /// AF_VSOCK within this machine: CID 1.
    Vsock,
}

/// First port of contenders on AF_VSOCK, and how many each may have.
const FIRST_PORT: u32 = 10_000;
const PORTS_EACH: u32 = 16;

/// An endpoint on the far side, of either transport.
#[derive(Debug)]
pub(crate) struct Between {
    link: Link,
    pub(crate) socket: PathBuf,
    port: u32,
}

impl Between {
    /// The `index`th place of the contender with this number.
    pub(crate) fn new(link: Link, socket: PathBuf, number: u16, index: u32) -> Self {
        let port = FIRST_PORT + u32::from(number) * PORTS_EACH + index;
        Self { link, socket, port }
    }

    /// The URL for odyn-net and enclaver-outer.
    pub(crate) fn url(&self) -> String {
        match self.link {
            Link::Unix => format!("unix://{}", text(&self.socket)),
            Link::Vsock => format!("vsock://{VMADDR_CID_LOCAL}:{}", self.port),
        }
    }

    /// The address for socat to listen on.
    pub(crate) fn socat_listen(&self) -> String {
        match self.link {
            Link::Unix => format!("UNIX-LISTEN:{},fork,backlog=4096", text(&self.socket)),
            Link::Vsock => format!("VSOCK-LISTEN:{},fork,backlog=4096", self.port),
        }
    }

    /// The address for socat to dial.
    pub(crate) fn socat_dial(&self) -> String {
        match self.link {
            Link::Unix => format!("UNIX-CONNECT:{}", text(&self.socket)),
            Link::Vsock => format!("VSOCK-CONNECT:{VMADDR_CID_LOCAL}:{}", self.port),
        }
    }

    /// Whether a process listens there.
    pub(crate) fn is_up(&self) -> bool {
        match self.link {
            Link::Unix => UnixStream::connect(&self.socket).is_ok(),
            Link::Vsock => vsock().is_ok_and(|socket| {
                let address = VsockAddr::new(VMADDR_CID_LOCAL, self.port);
                connect(socket.as_raw_fd(), &address).is_ok()
            }),
        }
    }
}

impl Link {
    /// The name of a contender over this link.
    pub(crate) fn name(self, contender: &str) -> String {
        match self {
            Self::Unix => contender.to_owned(),
            Self::Vsock => format!("{contender}-vsock"),
        }
    }

    /// Why there is no such link here. Nothing is sent to find out.
    pub(crate) fn missing(self) -> Option<String> {
        if self == Self::Unix {
            return None;
        }
        let address = VsockAddr::new(VMADDR_CID_LOCAL, VMADDR_PORT_ANY);
        let bound = vsock().and_then(|socket| Ok(bind(socket.as_raw_fd(), &address)?));
        bound.err().map(|error| {
            format!("no loopback of AF_VSOCK in this kernel (module vsock_loopback): {error}")
        })
    }
}

fn vsock() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(new_socket(
        AddressFamily::Vsock,
        SockType::Stream,
        flags,
        None,
    )?)
}
