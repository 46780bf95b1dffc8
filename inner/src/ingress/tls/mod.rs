//! Ends the clients' TLS in the guest: the host and the network see ciphertext only.
//!
//! The link's relay carries the ciphertext and handles ends, resets, back-pressure, drain and
//! delivery. [`app::TlsApp`] stands in for the app's socket: it shakes hands with the client,
//! connects the app, and translates.

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

/// Interval of the checks for changed files. A handshake triggers them.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The certificates of one port and its other TLS settings.
#[derive(Debug)]
pub(super) struct Tls {
    wanted: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The versions of the files at the last check.
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Files are missing or wrong.
    pub(super) fn load(wanted: &TlsFiles) -> Result<Self, Vec<Fault>> {
        // The versions are noted first, so that a change during the read is seen later.
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

    /// Returns the configuration for a new handshake. Changed files are read again. If they do not
    /// fit together, the earlier configuration stays.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= CHECK_INTERVAL {
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
                tracing::info!(first, "reloaded the certificates of an ingress port");
            }
            Err(faults) => {
                for fault in faults {
                    tracing::warn!(
                        help = fault.reason.help(),
                        "changed certificates cannot be used, the earlier ones stay: {fault}"
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
