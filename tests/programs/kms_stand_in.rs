//! The stand-in for KMS as a process.
//!
//! `odyn-kms-stand-in ADDR:PORT CERT KEY ID SECRET TOKEN` prints `ready` and serves; TOKEN may be
//! empty. Each request it prints as a line: action, access key, whether attested.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use odyn_tests::kms::{Seen, StandIn, acceptor, serve};

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [address, certificate, key, id, secret, token] = words.as_slice() else {
        bail!("see the source for usage");
    };
    let kms = StandIn::new(id, secret, Some(*token).filter(|token| !token.is_empty()));
    let tls = acceptor(Path::new(certificate), Path::new(key))?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("ready");
    std::io::stdout().flush()?;
    // A client that has its answer finds the line.
    kms.tell(print);
    serve(kms, listener, tls).await;
    Ok(())
}

fn print(seen: &Seen) {
    let attested = match seen.document {
        Some(_) => "attested",
        None => "plain",
    };
    println!("{} {} {attested}", seen.action, seen.access_key);
}
