//! The Nitro Secure Module of an enclave: /dev/nsm.

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver;

use super::{Claims, Module};
use crate::Error;

/// The Nitro Secure Module.
#[derive(Debug)]
pub struct NsmDevice(i32);

impl NsmDevice {
    /// The path of the device.
    pub const PATH: &str = "/dev/nsm";

    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Module`] if the device does not exist or may not be opened.
    pub fn open() -> Result<Self, Error> {
        match driver::nsm_init() {
            descriptor @ 0.. => Ok(Self(descriptor)),
            _ => Err(Error::Module(format!("{} cannot be opened", Self::PATH))),
        }
    }
}

impl Drop for NsmDevice {
    fn drop(&mut self) {
        driver::nsm_exit(self.0);
    }
}

impl Module for NsmDevice {
    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, Error> {
        claims.check()?;
        let claims = claims.clone();
        let request = Request::Attestation {
            public_key: claims.public_key.map(Into::into),
            user_data: claims.user_data.map(Into::into),
            nonce: claims.nonce.map(Into::into),
        };
        match driver::nsm_process_request(self.0, request) {
            Response::Attestation { document } => Ok(document),
            Response::Error(code) => Err(Error::Module(format!("it answers {code:?}"))),
            _ => Err(Error::Module("it answers something else".into())),
        }
    }
}
