//! A module for machines without an NSM.
//!
//! Its documents have the form of real ones and cannot be taken for them: they lead to another
//! root, every PCR is zero, and the module's name says that it is simulated.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use ciborium::Value;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, SigningKey,
};

use super::document::PROTECTED;
use super::verify::{to_be_signed, write};
use super::{Claims, Module, SIMULATED_PREFIX, SIMULATED_ROOT};
use crate::Error;

/// Public on purpose: see [`SIMULATED_ROOT`].
const ROOT_KEY: &[u8] = include_bytes!("simulated-root.p8");
/// How long a certificate is valid; real ones have the same time.
const VALID: Duration = Duration::from_secs(3 * 3600);
/// Remaining validity at which a new certificate is made.
const RENEW: Duration = Duration::from_secs(3600);
/// Number of PCRs of a module.
const PCRS: u8 = 16;
/// Bytes of SHA-384.
const PCR: usize = 48;

/// A module that attests nothing.
#[derive(Debug)]
pub struct Simulated {
    id: String,
    /// The key and chain that sign documents, and the end of their validity.
    signer: parking_lot::Mutex<Signer>,
}

#[derive(Debug)]
struct Signer {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    /// The chain, from the root on.
    chain: Vec<Vec<u8>>,
    renew: SystemTime,
}

impl Simulated {
    /// Makes a module with a chain of certificates of its own.
    ///
    /// # Errors
    /// [`Error::Module`] when no keys can be made.
    pub fn new() -> Result<Self, Error> {
        let mut number = [0; 8];
        aws_lc_rs::rand::fill(&mut number).map_err(|_| failed("no random numbers"))?;
        let id = format!("{SIMULATED_PREFIX}{:016x}", u64::from_be_bytes(number));
        let signer = Signer::new(&id, SystemTime::now())?;
        Ok(Self {
            id,
            signer: parking_lot::Mutex::new(signer),
        })
    }

    /// Makes a document as of `now`.
    ///
    /// # Errors
    /// As [`Module::attest`].
    pub fn attest_at(&self, claims: &Claims, now: SystemTime) -> Result<Vec<u8>, Error> {
        claims.check()?;
        let mut signer = self.signer.lock();
        if now >= signer.renew {
            *signer = Signer::new(&self.id, now)?;
        }
        let payload = write(&self.payload(&signer, claims, now));
        let message = to_be_signed(&payload);
        let signature = signer.key.sign(&SystemRandom::new(), &message);
        let signature = signature.map_err(|_| failed("cannot sign"))?;
        Ok(write(&Value::Array(vec![
            Value::Bytes(PROTECTED.to_vec()),
            Value::Map(Vec::new()),
            Value::Bytes(payload),
            Value::Bytes(signature.as_ref().to_vec()),
        ])))
    }

    /// The members, in the order of a real module.
    fn payload(&self, signer: &Signer, claims: &Claims, now: SystemTime) -> Value {
        let millis = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map_or(Value::Null, Value::Bytes);
        let pcrs = (0..PCRS)
            .map(|index| (Value::from(index), Value::Bytes(vec![0; PCR])))
            .collect();
        let chain = signer.chain.iter().cloned().map(Value::Bytes).collect();
        let members = [
            ("module_id", Value::Text(self.id.clone())),
            ("digest", Value::Text("SHA384".into())),
            (
                "timestamp",
                Value::from(u64::try_from(millis).unwrap_or(u64::MAX)),
            ),
            ("pcrs", Value::Map(pcrs)),
            ("certificate", Value::Bytes(signer.certificate.clone())),
            ("cabundle", Value::Array(chain)),
            ("public_key", bytes(&claims.public_key)),
            ("user_data", bytes(&claims.user_data)),
            ("nonce", bytes(&claims.nonce)),
        ];
        let named = |(name, value): (&str, Value)| (Value::Text(name.into()), value);
        Value::Map(members.into_iter().map(named).collect())
    }
}

impl Module for Simulated {
    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, Error> {
        self.attest_at(claims, SystemTime::now())
    }
}

impl Signer {
    /// A chain of three certificates: root, intermediate, module.
    fn new(id: &str, now: SystemTime) -> Result<Self, Error> {
        let root = rcgen_key(KeyPair::from_pkcs8_der_and_sign_algo(
            &ROOT_KEY.into(),
            &PKCS_ECDSA_P384_SHA384,
        ))?;
        let root = Issuer::new(root_params(), root);
        let between = rcgen_key(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384))?;
        let mut params = params(&format!("{id}.zonal"), now);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let between_der = signed(&params, &between, &root)?;
        let between = Issuer::new(params, between);
        let leaf = rcgen_key(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384))?;
        let certificate = signed(&self::params(id, now), &leaf, &between)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, leaf.serialized_der());
        Ok(Self {
            key: key.map_err(|_| failed("no key"))?,
            certificate,
            chain: vec![SIMULATED_ROOT.to_vec(), between_der],
            renew: now + (VALID - RENEW),
        })
    }
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, text) in [
        (DnType::OrganizationName, "odyn"),
        (
            DnType::OrganizationalUnitName,
            "SIMULATED: attests nothing, its key is public",
        ),
        (DnType::CommonName, "odyn simulated attestation root"),
    ] {
        params.distinguished_name.push(kind, text);
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn params(name: &str, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "odyn SIMULATED");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + VALID).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn signed(
    params: &CertificateParams,
    key: &KeyPair,
    issuer: &Issuer<'_, impl SigningKey>,
) -> Result<Vec<u8>, Error> {
    let certificate = params.signed_by(key, issuer);
    let certificate = certificate.map_err(|error| failed(&error.to_string()))?;
    Ok(certificate.der().to_vec())
}

fn rcgen_key(key: Result<KeyPair, rcgen::Error>) -> Result<KeyPair, Error> {
    key.map_err(|error| failed(&error.to_string()))
}

fn failed(what: &str) -> Error {
    Error::Module(format!("simulated: {what}"))
}
