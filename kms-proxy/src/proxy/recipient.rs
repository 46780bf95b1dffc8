//! The key that KMS encrypts for, and attestation documents with it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use crate::attest::{Claims, Module};
use crate::envelope::RecipientKey;
use crate::{Error, Secret};

/// How long a document is used.
///
/// KMS accepts a document for five minutes and any number of requests, and ignores the nonce. The
/// margin is for a clock that drifts.
const REUSE: Duration = Duration::from_secs(60);

/// The key and a document. The key is made once, in the background, and lives as long as the
/// process.
pub(super) struct Recipient {
    module: Arc<dyn Module>,
    key: OnceCell<Arc<RecipientKey>>,
    document: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Recipient {
    pub(super) fn new(module: Arc<dyn Module>) -> Self {
        Self {
            module,
            key: OnceCell::new(),
            document: Mutex::new(None),
        }
    }

    /// The key. The first call makes it.
    pub(super) async fn key(&self) -> Result<Arc<RecipientKey>, Error> {
        let make = || async { blocking(RecipientKey::generate).await.map(Arc::new) };
        self.key.get_or_try_init(make).await.map(Arc::clone)
    }

    /// A document in base64.
    pub(super) async fn document(&self) -> Result<Arc<str>, Error> {
        let key = self.key().await?;
        let mut held = self.document.lock().await;
        if let Some((made, document)) = held.as_ref()
            && made.elapsed() < REUSE
        {
            return Ok(Arc::clone(document));
        }
        let module = Arc::clone(&self.module);
        let made = Instant::now();
        let claims = Claims {
            public_key: Some(key.public_der().to_vec()),
            ..Claims::default()
        };
        let document = blocking(move || module.attest(&claims)).await?;
        let document: Arc<str> = STANDARD.encode(document).into();
        *held = Some((made, Arc::clone(&document)));
        Ok(document)
    }

    /// Decrypts a `CiphertextForRecipient`, given in base64.
    pub(super) async fn open(&self, envelope: &str) -> Result<Secret, Error> {
        let wrong = Error::Envelope {
            what: "base64",
            at: 0,
        };
        let envelope = STANDARD.decode(envelope).map_err(|_| wrong)?;
        let key = self.key().await?;
        // RSA takes a millisecond or two, too long for a thread that serves connections.
        blocking(move || key.open(&envelope)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Key("the work was interrupted")))
}
