//! The result, for people and as JSON.

use std::io::{Result, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use odyn_kms::attest::Document;
use serde_json::json;

pub(super) fn text(
    document: Option<&Document>,
    fault: Option<&str>,
    out: &mut impl Write,
) -> Result<()> {
    match fault {
        None => writeln!(out, "valid")?,
        Some(fault) => writeln!(out, "NOT VALID: {fault}")?,
    }
    let Some(document) = document else {
        return Ok(());
    };
    if fault.is_some() {
        writeln!(out, "\nContent, not verified:")?;
    }
    if document.is_simulated() {
        writeln!(out, "SIMULATED: it attests nothing")?;
    } else if document.is_debug() {
        writeln!(out, "DEBUG MODE: PCR0 is zero, so it attests no image")?;
    }
    // The author of the document chose the module's name.
    writeln!(out, "module     {}", document.module_id.escape_debug())?;
    writeln!(out, "made       {}", time(document))?;
    for (index, pcr) in &document.pcrs {
        if pcr.iter().any(|byte| *byte != 0) || *index < 3 {
            writeln!(out, "PCR{index:<7} {}", hex(pcr))?;
        }
    }
    let claims = [
        ("nonce", &document.claims.nonce),
        ("user_data", &document.claims.user_data),
        ("public_key", &document.claims.public_key),
    ];
    for (name, bytes) in claims {
        if let Some(bytes) = bytes {
            writeln!(out, "{name:<10} {}", hex(bytes))?;
        }
    }
    Ok(())
}

pub(super) fn json(
    document: Option<&Document>,
    fault: Option<&str>,
    out: &mut impl Write,
) -> Result<()> {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
    let document = document.map(|document| {
        let pcrs: serde_json::Map<_, _> = document
            .pcrs
            .iter()
            .map(|(index, pcr)| (format!("PCR{index}"), hex(pcr).into()))
            .collect();
        json!({
            "module_id": document.module_id,
            "timestamp": time(document),
            "simulated": document.is_simulated(),
            "debug": document.is_debug(),
            "pcrs": pcrs,
            "nonce": bytes(&document.claims.nonce),
            "user_data": bytes(&document.claims.user_data),
            "public_key": bytes(&document.claims.public_key),
        })
    });
    let whole = json!({ "valid": fault.is_none(), "fault": fault, "document": document });
    writeln!(out, "{whole}")
}

fn time(document: &Document) -> String {
    humantime::format_rfc3339_millis(document.timestamp).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
