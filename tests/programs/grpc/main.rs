//! A gRPC service by tonic and its client, for the tests.
//!
//! `odyn-grpc serve ADDR:PORT` prints "ready", and ends gracefully at SIGTERM: it prints "stopping",
//! says GOAWAY, and calls that are open go on. `odyn-grpc call ADDR:PORT CA GO` (CA "" is no TLS)
//! makes a call of every kind and prints a line for each; after the first message of the last stream
//! it prints "midway" and waits for the file GO.

#![forbid(unsafe_code)]

mod call;
mod connect;
mod serve;

use std::io::Write as _;

use anyhow::{Result, bail};
use bytes::Bytes;
use tonic_prost::ProstCodec;

/// A large message: more than any window of HTTP/2 on the way.
const LARGE: usize = 4 << 20;
/// The limit of a message. The default is `LARGE`, without room for what is around it.
const LIMIT: usize = 8 << 20;

const ECHO: &str = "/odyn.Test/Echo";
const SLOW: &str = "/odyn.Test/Slow";
const DOWN: &str = "/odyn.Test/Down";
const UP: &str = "/odyn.Test/Up";
const BOTH: &str = "/odyn.Test/Both";

/// `message Part { bytes data = 1; }`
#[derive(Clone, PartialEq, prost::Message)]
struct Part {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

/// `message Count { uint64 number = 1; }`
#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    #[prost(uint64, tag = "1")]
    number: u64,
}

impl Part {
    fn new(data: impl Into<Bytes>) -> Self {
        Self { data: data.into() }
    }
}

/// Encodes `T` and decodes `U`.
fn codec<T, U>() -> ProstCodec<T, U>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    ProstCodec::default()
}

/// Prints a line that the test waits for.
fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", address] => serve::run(address.parse()?).await,
        ["call", address, ca, go] => call::run(address.parse()?, ca, go.as_ref()).await,
        _ => bail!("see the source for usage"),
    }
}
