//! Connecting to the program.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

/// First pause between two tries; doubled at each.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A port on which the program listens, or will.
#[derive(Debug)]
pub(super) struct AppPort {
    address: SocketAddr,
    /// Held by the one client that tries while the program does not listen: the others need not
    /// knock as well.
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

    /// Connects, and tries again for `patience` while nobody listens.
    ///
    /// # Errors
    /// What `connect()` said last.
    pub(super) async fn connect(&self, patience: Duration) -> io::Result<TcpStream> {
        let deadline = Instant::now() + patience;
        match self.attempt().await {
            Err(error) if is_refusal(&error) => {}
            result => return result,
        }
        let Ok(_turn) = timeout_at(deadline, self.trying.lock()).await else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt().await {
                Err(error) if is_refusal(&error) && Instant::now() + pause < deadline => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                result => return result,
            }
        }
    }

    async fn attempt(&self) -> io::Result<TcpStream> {
        let socket = odyn_link::connect(self.address).await?;
        // Where nobody listens, the kernel may give us the very port as our own and connect us
        // with ourselves; and the program could not have it any more.
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

    /// A program that does not listen.
    fn silent() -> (TcpSocket, AppPort) {
        let (socket, address) = crate::ingress::tests::silent();
        (
            socket,
            AppPort::new(NonZeroU16::new(address.port()).unwrap()),
        )
    }

    #[tokio::test]
    async fn many_wait_for_a_program_that_listens_late() {
        let (socket, program) = silent();
        let late = async {
            sleep(Duration::from_millis(50)).await;
            let listener = socket.listen(20).unwrap();
            let mut held = Vec::new();
            for _ in 0..20 {
                held.push(listener.accept().await.unwrap());
            }
            held
        };
        let clients = futures::future::join_all((0..20).map(|_| program.connect(LONG)));
        let (_held, clients) = tokio::join!(late, clients);
        assert!(clients.iter().all(Result::is_ok), "{clients:?}");
    }

    #[tokio::test]
    async fn a_program_that_never_listens_is_given_up() {
        let (_socket, program) = silent();
        let patience = Duration::from_millis(20);
        let clients = futures::future::join_all((0..3).map(|_| program.connect(patience))).await;
        for client in clients {
            assert!(is_refusal(&client.unwrap_err()));
        }
    }

    #[tokio::test]
    async fn a_socket_connected_with_itself_is_no_program() {
        // The kernel picks the port itself once in ten thousands of times; here it is told to.
        let (socket, program) = silent();
        let itself = socket.connect(program.address()).await.unwrap();
        assert_eq!(itself.local_addr().unwrap(), program.address());
        drop(itself);
        assert!(program.attempt().await.is_err());
    }
}
