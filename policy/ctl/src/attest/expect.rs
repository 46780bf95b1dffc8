//! The expected values of a document, from the command line and from files.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::cli::VerifyArgs;

/// The PCRs of `--expect` and `--pcrN`; the latter take precedence.
pub(super) fn pcrs(args: &VerifyArgs) -> Result<BTreeMap<u8, Vec<u8>>> {
    let mut pcrs = BTreeMap::new();
    if let Some(path) = &args.expect {
        let name = path.display();
        let text = fs::read(path).with_context(|| format!("can't read {name}"))?;
        pcrs = measurements(&text).with_context(|| format!("{name} has no measurements"))?;
    }
    let given = [
        (0, &args.pcr0),
        (1, &args.pcr1),
        (2, &args.pcr2),
        (3, &args.pcr3),
        (4, &args.pcr4),
        (8, &args.pcr8),
    ];
    for (index, text) in given {
        if let Some(text) = text {
            pcrs.insert(index, pcr(index, text)?);
        }
    }
    Ok(pcrs)
}

/// `{"Measurements": {"PCR0": "…"}}`, as `nitro-cli build-enclave` prints it, or its inner part.
fn measurements(json: &[u8]) -> Result<BTreeMap<u8, Vec<u8>>> {
    let value: Value = serde_json::from_slice(json)?;
    let inner = value.get("Measurements").unwrap_or(&value);
    let mut pcrs = BTreeMap::new();
    for (name, value) in inner.as_object().context("not an object")? {
        let index = name.to_ascii_uppercase();
        let Some(index) = index.strip_prefix("PCR") else {
            continue;
        };
        let index = index.parse().with_context(|| format!("no PCR: {name}"))?;
        pcrs.insert(index, pcr(index, value.as_str().context("not a text")?)?);
    }
    match pcrs.is_empty() {
        true => bail!("no PCR0, PCR1, …"),
        false => Ok(pcrs),
    }
}

fn pcr(index: u8, text: &str) -> Result<Vec<u8>> {
    let bytes = hex(text).with_context(|| format!("PCR{index} is not hexadecimal"))?;
    // All PCRs are SHA-384.
    match bytes.len() {
        48 => Ok(bytes),
        other => bail!("PCR{index} has {other} bytes, expected 48"),
    }
}

/// Reads hexadecimal, or else base64.
pub(super) fn nonce(text: &str) -> Result<Vec<u8>> {
    match hex(text) {
        Some(bytes) => Ok(bytes),
        None => STANDARD
            .decode(text)
            .context("the nonce is neither hexadecimal nor base64"),
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().strip_prefix("0x").unwrap_or(text.trim());
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}
