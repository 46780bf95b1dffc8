//! `policyctl attest verify`.

mod expect;
mod report;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use odyn_kms::attest::{AWS_NITRO_ROOT, Document, Expected, MAX_DOCUMENT, SIMULATED_ROOT, verify};
use pki_types::CertificateDer;
use pki_types::pem::PemObject;

use crate::CommandOutcome;
use crate::cli::VerifyArgs;

/// Longest input in bytes: a document in base64, with line breaks.
const MAX_INPUT: u64 = 4 * MAX_DOCUMENT as u64;

pub(crate) fn run(args: &VerifyArgs, out: &mut impl Write) -> Result<CommandOutcome> {
    let bytes = document(&args.document)?;
    let root = root(&args.root)?;
    let nonce = args.nonce.as_deref().map(expect::nonce).transpose()?;
    let expected = Expected {
        pcrs: expect::pcrs(args)?,
        nonce: nonce.as_deref(),
        ..Expected::of_root(&root, args.at.unwrap_or_else(SystemTime::now))
    };
    let verified = verify(&bytes, &expected);
    // The content of an invalid document is shown, too, marked as invalid.
    let read = verified.as_ref().ok().cloned();
    let document = read.or_else(|| Document::read(&bytes).ok());
    let fault = verified.err().map(|fault| fault.to_string());
    match args.json {
        true => report::json(document.as_ref(), fault.as_deref(), out)?,
        false => report::text(document.as_ref(), fault.as_deref(), out)?,
    }
    Ok(match fault {
        None => CommandOutcome::Fine,
        Some(_) => CommandOutcome::Findings,
    })
}

/// A document in binary, or in base64.
fn document(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let name = path.display();
    match path == Path::new("-") {
        true => std::io::stdin().take(MAX_INPUT).read_to_end(&mut bytes),
        false => fs::File::open(path)
            .with_context(|| format!("can't open {name}"))?
            .take(MAX_INPUT)
            .read_to_end(&mut bytes),
    }
    .with_context(|| format!("can't read {name}"))?;
    // No base64 begins with the first byte of a document.
    let compact: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    match STANDARD.decode(&compact) {
        Ok(decoded) if !compact.is_empty() => Ok(decoded),
        _ => Ok(bytes),
    }
}

fn root(name: &str) -> Result<Vec<u8>> {
    match name {
        "aws" => return Ok(AWS_NITRO_ROOT.to_vec()),
        "simulated" => return Ok(SIMULATED_ROOT.to_vec()),
        _ => {}
    }
    let bytes = fs::read(name).with_context(|| format!("can't read {name}"))?;
    if !bytes.starts_with(b"-----") {
        return Ok(bytes);
    }
    match CertificateDer::from_pem_slice(&bytes) {
        Ok(certificate) => Ok(certificate.to_vec()),
        Err(_) => bail!("{name} has no certificate"),
    }
}
