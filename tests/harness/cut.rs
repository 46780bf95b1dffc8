//! A wire between guest and host that can be cut: a relay of Unix sockets.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{fs, thread};

/// The relay; its threads end with the connections, which end when it is dropped.
#[derive(Debug)]
pub struct Wire {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pairs: Mutex<HashMap<u64, Arc<Pair>>>,
    /// How many bytes of the guest each of the next connections lives for.
    doomed: Mutex<Vec<usize>>,
    stopped: AtomicBool,
}

/// A connection of the guest and the one to the host.
#[derive(Debug)]
struct Pair {
    guest: UnixStream,
    host: UnixStream,
    /// Bytes of the guest that still pass.
    left: AtomicUsize,
    silent: Mutex<bool>,
    woken: Condvar,
}

impl Wire {
    /// A relay that listens at `path` and connects to `host`.
    ///
    /// # Panics
    /// When it can't listen.
    pub fn new(path: &Path, host: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a path of one's own");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("own file");
        let shared = Arc::new(Shared::default());
        let wire = Self {
            path: path.to_owned(),
            shared: Arc::clone(&shared),
        };
        let host = host.to_owned();
        thread::spawn(move || {
            for (number, guest) in (0..).zip(listener.incoming().flatten()) {
                if shared.stopped.load(Ordering::Acquire) {
                    return;
                }
                // Dropped, when the host is away: a wire that leads nowhere.
                if let Ok(host) = UnixStream::connect(&host) {
                    shared.join(number, guest, host);
                }
            }
        });
        wire
    }

    /// The open connections of the wire.
    pub fn connections(&self) -> Vec<u64> {
        let mut all: Vec<u64> = lock(&self.shared.pairs).keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// Cuts a connection on both sides.
    pub fn cut(&self, connection: u64) {
        if let Some(pair) = lock(&self.shared.pairs).remove(&connection) {
            pair.cut();
        }
    }

    /// Nothing passes on it any more, and neither end is told.
    pub fn silence(&self, connection: u64) {
        if let Some(pair) = lock(&self.shared.pairs).get(&connection) {
            *lock(&pair.silent) = true;
        }
    }

    /// The next connections are cut after so many bytes of the guest, each.
    pub fn doom(&self, bytes: &[usize]) {
        lock(&self.shared.doomed).extend(bytes);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        let _ = UnixStream::connect(&self.path);
        for connection in self.connections() {
            self.cut(connection);
        }
    }
}

impl Shared {
    fn join(self: &Arc<Self>, number: u64, guest: UnixStream, host: UnixStream) {
        let left = lock(&self.doomed).pop().unwrap_or(usize::MAX);
        let pair = Arc::new(Pair {
            guest,
            host,
            left: AtomicUsize::new(left),
            silent: Mutex::default(),
            woken: Condvar::new(),
        });
        lock(&self.pairs).insert(number, Arc::clone(&pair));
        for is_up in [true, false] {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || {
                    pair.copy(is_up);
                    pair.cut();
                    lock(&shared.pairs).remove(&number);
                })
                .expect("a thread");
        }
    }
}

impl Pair {
    fn copy(&self, is_up: bool) {
        let (mut from, mut to) = if is_up {
            (&self.guest, &self.host)
        } else {
            (&self.host, &self.guest)
        };
        let mut buffer = vec![0; 128 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut silent = lock(&self.silent);
            while *silent {
                silent = self
                    .woken
                    .wait(silent)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            drop(silent);
            let passes = if is_up {
                count.min(self.left.load(Ordering::Acquire))
            } else {
                count
            };
            if to.write_all(&buffer[..passes]).is_err() || passes < count {
                return;
            }
            if is_up && self.left.load(Ordering::Acquire) != usize::MAX {
                self.left.fetch_sub(passes, Ordering::AcqRel);
            }
        }
    }

    fn cut(&self) {
        let _ = self.guest.shutdown(Shutdown::Both);
        let _ = self.host.shutdown(Shutdown::Both);
        *lock(&self.silent) = false;
        self.woken.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
