//! Connects clients to the app.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

/// First pause between two attempts. Each further one is twice as long.
const FIRST_INTERVAL: Duration = Duration::from_millis(5);
/// Longest pause between two attempts.
const MAX_INTERVAL: Duration = Duration::from_millis(200);

/// A port on which the app listens or will listen.
#[derive(Debug)]
pub(super) struct AppPort {
    address: SocketAddr,
    /// Held by the one client that repeats its attempts while the app does not listen. The other
    /// clients wait for it.
    trying: Mutex<()>,
}

impl AppPort {
    /// A port of the loopback interface.
    pub(super) fn new(port: NonZeroU16) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, port.get()).into(),
            trying: Mutex::new(()),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects, and repeats the attempt for `wait_timeout` while the port refuses.
    ///
    /// # Errors
    /// The error of the last connect().
    pub(super) async fn connect(&self, wait_timeout: Duration) -> io::Result<TcpStream> {
        let deadline = Instant::now() + wait_timeout;
        match self.attempt().await {
            Err(error) if is_refusal(&error) => {}
            result => return result,
        }
        let Ok(_turn) = timeout_at(deadline, self.trying.lock()).await else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let mut pause = FIRST_INTERVAL;
        loop {
            match self.attempt().await {
                Err(error) if is_refusal(&error) && Instant::now() + pause < deadline => {
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_INTERVAL);
                }
                result => return result,
            }
        }
    }

    async fn attempt(&self) -> io::Result<TcpStream> {
        let socket = odyn_link::connect(self.address).await?;
        // While no socket listens there, the kernel may pick this very port as the client's own and
        // connect the socket with itself. The app could then not bind the port.
        if socket.local_addr()? == self.address {
            socket.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(socket)
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpSocket;

    const LONG: Duration = Duration::from_secs(60);

    /// An app that does not listen.
    fn silent() -> (TcpSocket, AppPort) {
        let (socket, address) = crate::ingress::tests::silent();
        (
            socket,
            AppPort::new(NonZeroU16::new(address.port()).unwrap()),
        )
    }

    #[tokio::test]
    async fn many_wait_for_an_app_that_listens_late() {
        let (socket, app) = silent();
        let late = async {
            sleep(Duration::from_millis(50)).await;
            let listener = socket.listen(20).unwrap();
            let mut held = Vec::new();
            for _ in 0..20 {
                held.push(listener.accept().await.unwrap());
            }
            held
        };
        let clients = futures::future::join_all((0..20).map(|_| app.connect(LONG)));
        let (_held, clients) = tokio::join!(late, clients);
        assert!(clients.iter().all(Result::is_ok), "{clients:?}");
    }

    #[tokio::test]
    async fn an_app_that_never_listens_is_given_up() {
        let (_socket, app) = silent();
        let wait_timeout = Duration::from_millis(20);
        let clients = futures::future::join_all((0..3).map(|_| app.connect(wait_timeout))).await;
        for client in clients {
            assert!(is_refusal(&client.unwrap_err()));
        }
    }

    #[tokio::test]
    async fn a_socket_connected_with_itself_is_no_app() {
        // The kernel picks the port by itself once in some ten thousand times; the test forces it.
        let (socket, app) = silent();
        let itself = socket.connect(app.address()).await.unwrap();
        assert_eq!(itself.local_addr().unwrap(), app.address());
        drop(itself);
        assert!(app.attempt().await.is_err());
    }
}
