//! Selects the module that attests for this guest.

use std::path::Path;
use std::sync::Arc;

use odyn_kms::Error;
use odyn_kms::attest::{Claims, Module, NsmDevice, Simulated};

/// The source of attestation documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Nsm {
    /// The Nitro Secure Module, if there is one.
    #[default]
    Auto,
    /// A simulated module. Its documents prove nothing, and say so.
    Simulated,
}

/// Opens the module. A module that does not work answers each request with its error.
pub(crate) fn module(choice: Nsm) -> Arc<dyn Module> {
    let made: Result<Arc<dyn Module>, Error> = match choice {
        Nsm::Simulated => {
            tracing::warn!("attestation is simulated: the documents prove nothing");
            Simulated::new().map(|module| Arc::new(module) as Arc<dyn Module>)
        }
        Nsm::Auto if Path::new(NsmDevice::PATH).exists() => {
            NsmDevice::open().map(|module| Arc::new(module) as Arc<dyn Module>)
        }
        Nsm::Auto => Err(Error::Module(format!(
            "this is no Nitro enclave: {} does not exist",
            NsmDevice::PATH
        ))),
    };
    made.unwrap_or_else(|error| Arc::new(Missing(error.to_string())))
}

/// Answers each request with the reason why there is no module.
struct Missing(String);

impl Module for Missing {
    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, Error> {
        claims.check()?;
        Err(Error::Module(self.0.clone()))
    }
}
