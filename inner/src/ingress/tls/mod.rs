//! TLS that ends in the guest: the host half, and all behind it, see ciphertext only.
//!
//! The relay of the link carries the ciphertext, and with it everything that holds for a flow: ends,
//! resets, back-pressure, drain and delivery. At the app's side of the relay stands [`app::TlsApp`],
//! which shakes hands with the client, connects the app, and translates.

mod app;
mod files;
mod report;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use odyn_ingress_tls::Fault;
use odyn_policy::TlsFiles;
use rustls::ServerConfig;

use self::files::Stamp;

pub(super) use self::app::TlsApp;
pub(super) use self::report::TlsFailure;

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
