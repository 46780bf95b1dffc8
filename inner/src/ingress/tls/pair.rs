//! Two TCP sockets that are connected with each other, over the loopback interface.
//!
//! TCP, since resets and half-closes shall pass as what they are. Other processes may connect to
//! the listening socket as well: what they get is closed, and never taken for an end of ours.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OnceCell};

/// Where to listen: clear of the ephemeral ports, and below those of the capture.
const PORTS: std::ops::Range<u16> = 65_300..65_400;

/// Room of each socket in each direction, in bytes; the kernel doubles it. Left to itself it grows
/// to several MiB.
const BUFFER: usize = 128 * 1024;

/// Makes pairs.
#[derive(Debug, Default)]
pub(in crate::ingress) struct Pairs {
    /// Held by the one that connects: the next connection to be accepted is its.
    listener: OnceCell<Mutex<TcpListener>>,
}

impl Pairs {
    /// Two sockets, connected.
    ///
    /// # Errors
    /// When the system is out of something.
    pub(in crate::ingress) async fn open(&self) -> io::Result<(TcpStream, TcpStream)> {
        let listener = self
            .listener
            .get_or_try_init(|| async { listen().map(Mutex::new) })
            .await?
            .lock()
            .await;
        let near = TcpStream::connect(listener.local_addr()?).await?;
        let own = near.local_addr()?;
        let far = loop {
            let (socket, peer) = listener.accept().await?;
            if peer == own {
                break socket;
            }
        };
        drop(listener);
        for socket in [&near, &far] {
            socket.set_nodelay(true)?;
            let socket = SockRef::from(socket);
            socket.set_send_buffer_size(BUFFER)?;
            socket.set_recv_buffer_size(BUFFER)?;
        }
        Ok((near, far))
    }
}

fn listen() -> io::Result<TcpListener> {
    let bind = |port| StdListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let free = PORTS.rev().find_map(|port| bind(port).ok());
    let listener = match free {
        Some(listener) => listener,
        None => bind(0)?,
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_stranger_is_no_end_of_a_pair() {
        let pairs = Pairs::default();
        drop(pairs.open().await.unwrap());
        let address = {
            let listener = pairs.listener.get().unwrap().lock().await;
            listener.local_addr().unwrap()
        };
        let mut strangers = Vec::new();
        for _ in 0..20 {
            strangers.push(TcpStream::connect(address).await.unwrap());
        }
        let (mut near, mut far) = pairs.open().await.unwrap();
        near.write_all(b"ours").await.unwrap();
        let mut got = [0; 4];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ours");
        assert_eq!(near.local_addr().unwrap(), far.peer_addr().unwrap());
        for mut stranger in strangers {
            assert_eq!(stranger.read(&mut got).await.unwrap_or(0), 0);
        }
    }
}
