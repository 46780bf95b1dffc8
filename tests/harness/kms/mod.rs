//! A stand-in for KMS that does with `Recipient` what KMS does.
//!
//! No emulator does: it verifies the attestation document (against the simulated root) and its age,
//! and answers in KMS' BER layout, in both forms of content by turns, with the plaintext member empty
//! in one of the ways KMS has. That its envelopes are KMS' is held against recorded ones in
//! `kms-proxy/src/envelope/tests.rs`. Signatures are verified; keys and policies are not real, unless
//! there is [an emulator](StandIn::with_emulator) behind it.

mod actions;
mod emulator;
mod recipient;
mod server;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use odyn_kms::credentials::Credentials;

use emulator::Emulator;

pub use server::{acceptor, serve};

/// The key that everybody may use.
pub const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd";
/// A key that no caller may use.
pub const FORBIDDEN: &str = "arn:aws:kms:eu-west-1:111122223333:key/forbidden";

/// A fault of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error with this status and type.
    Error(u16, &'static str),
    /// No answer at all.
    Hang,
    /// The connection is closed in place of an answer.
    Close,
    /// The envelope lacks its last bytes.
    Truncated,
    /// The envelope has bytes behind its end.
    Padded,
    /// The envelope is one for another key: an answer that is replayed.
    Replayed,
    /// The answer has the plaintext and no envelope.
    Plain,
    /// An answer of 12 KiB, or what is asked for.
    Long(usize),
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The action.
    pub action: String,
    /// The access key that signed it.
    pub access_key: String,
    /// The request's attestation document.
    pub document: Option<String>,
    /// The number of the connection.
    pub connection: usize,
}

/// A stand-in. Clones are the same one.
#[derive(Clone)]
pub struct StandIn(Arc<State>);

struct State {
    accepted: Mutex<Accepted>,
    faults: Mutex<VecDeque<Fault>>,
    seen: Mutex<Vec<Seen>>,
    /// A function that gets each request before it is answered.
    told: OnceLock<fn(&Seen)>,
    /// Key, context and plaintext of each ciphertext.
    sealed: Mutex<Vec<(String, String, Vec<u8>)>>,
    /// Seconds that its clock is ahead.
    clock: AtomicI64,
    answers: AtomicUsize,
    emulator: Option<Emulator>,
}

struct Accepted {
    credentials: Credentials,
    token: Option<String>,
}

impl StandIn {
    /// A stand-in that accepts these credentials.
    pub fn new(id: &str, secret: &str, token: Option<&str>) -> Self {
        Self::with_emulator(id, secret, token, None)
    }

    /// A stand-in that has moto, at this address, answer what moto knows: the stand-in verifies
    /// signatures, does what `Recipient` wants, and has its faults.
    pub fn with_emulator(
        id: &str,
        secret: &str,
        token: Option<&str>,
        emulator: Option<SocketAddr>,
    ) -> Self {
        Self(Arc::new(State {
            accepted: Mutex::new(Accepted {
                credentials: Credentials::new(id, secret),
                token: token.map(str::to_owned),
            }),
            faults: Mutex::default(),
            seen: Mutex::default(),
            told: OnceLock::new(),
            sealed: Mutex::default(),
            clock: AtomicI64::new(0),
            answers: AtomicUsize::new(0),
            emulator: emulator.map(Emulator),
        }))
    }

    /// Takes other credentials from now on.
    pub fn accept(&self, id: &str, secret: &str, token: Option<&str>) {
        *lock(&self.0.accepted) = Accepted {
            credentials: Credentials::new(id, secret),
            token: token.map(str::to_owned),
        };
    }

    /// Sets the faults of the next requests, one for each.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.0.faults).extend(faults);
    }

    /// Sets the clock so many seconds ahead.
    pub fn clock(&self, ahead: i64) {
        self.0.clock.store(ahead, Ordering::Relaxed);
    }

    /// Tells of each request from now on, before it is answered.
    pub fn tell(&self, told: fn(&Seen)) {
        let _ = self.0.told.set(told);
    }

    fn note(&self, seen: Seen) {
        if let Some(told) = self.0.told.get() {
            told(&seen);
        }
        lock(&self.0.seen).push(seen);
    }

    /// The requests that came, and forgets them.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *lock(&self.0.seen))
    }

    fn now(&self) -> SystemTime {
        let ahead = self.0.clock.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        match ahead >= 0 {
            true => SystemTime::now() + by,
            false => SystemTime::now() - by,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
