//! TLS that ends in the guest: the host half, and all behind it, see ciphertext only.
//!
//! ```text
//!   link ◀── relay ──▶ near ◀── loopback ──▶ far ◀── TLS ──▶ program
//! ```
//!
//! The relay of the link knows TCP sockets, their ends and resets, and all that a drain takes; it has
//! one here too, of a pair on the loopback interface ([`pair`]). At the other end of the pair
//! [`session`] speaks TLS and carries the plain bytes to the program. So the drain and everything
//! else that holds for a flow holds for its ciphertext without knowing of it.

mod files;
mod pair;
mod pump;
mod session;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use odyn_ingress_tls::Fault;
use odyn_policy::TlsFiles;
use rustls::ServerConfig;

use self::files::Stamp;

pub(super) use self::pair::Pairs;
pub(super) use self::session::{Outcome, Session};

/// Files are looked at for changes this often, when there are handshakes.
const LOOK: Duration = Duration::from_millis(100);

/// The certificates of one port, and what else the policy says of its TLS.
#[derive(Debug)]
pub(super) struct Tls {
    wanted: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The files as they were when they were last looked at.
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(super) fn load(wanted: &TlsFiles) -> Result<Self, Vec<Fault>> {
        // Before they are read: who writes them meanwhile is noticed later.
        let stamps = stamps(wanted);
        let config = odyn_ingress_tls::load(wanted, files::read)?;
        Ok(Self {
            wanted: wanted.clone(),
            current: Mutex::new(Current {
                config,
                stamps,
                looked: Instant::now(),
            }),
        })
    }

    /// The configuration for a handshake that begins now. Files that have changed are read again;
    /// as long as they do not fit together, what was read before stays.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let stamps = stamps(&self.wanted);
            if stamps != current.stamps {
                current.stamps = stamps;
                self.reload(&mut current);
            }
        }
        Arc::clone(&current.config)
    }

    fn reload(&self, current: &mut Current) {
        let first = self.wanted.files().next().map(|file| file.path.as_str());
        match odyn_ingress_tls::load(&self.wanted, files::read) {
            Ok(config) => {
                current.config = config;
                tracing::info!(first, "certificates of an ingress port were read again");
            }
            Err(faults) => {
                for fault in faults {
                    tracing::warn!(
                        help = fault.reason.help(),
                        "certificates have changed and can't be used, those before stay: {fault}"
                    );
                }
            }
        }
    }
}

fn stamps(wanted: &TlsFiles) -> Vec<Option<Stamp>> {
    wanted
        .files()
        .map(|file| files::stamp(&file.path).ok())
        .collect()
}

/// Bytes that a peer's kernel has not acknowledged; none when it has gone.
fn unacknowledged(socket: &tokio::net::TcpStream) -> usize {
    // A socket that was reset has no peer any more, but keeps its count.
    match socket.peer_addr() {
        Ok(_) => odyn_link::unacknowledged(socket).unwrap_or(0),
        Err(_) => 0,
    }
}

/// Makes the close of this socket a reset.
fn make_reset(socket: &tokio::net::TcpStream) -> io::Result<()> {
    socket.set_zero_linger()
}
