//! `sni: required`: the TLS ClientHello must carry the name that the flow was made to.
//!
//! The check peeks at the bytes and consumes none.

use std::io;
use std::time::Duration;

use odyn_proto::DnsName;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

/// Bytes of a ClientHello, at most. One with post-quantum key shares and long session tickets stays
/// well below.
const MAX_HELLO: usize = 16 * 1024;
/// How long the app may take to send its ClientHello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two peeks at an incomplete ClientHello.
const PEEK_INTERVAL: Duration = Duration::from_millis(5);

/// The start of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// A ClientHello with this server name, in lower case.
    Name(String),
    /// A ClientHello without a server name.
    Nameless,
    /// No TLS, or no whole ClientHello in time.
    NotTls,
}

/// Whether the connection begins with a ClientHello that carries the flow's name.
pub(super) async fn is_met(name: Option<&DnsName>, stream: &TcpStream) -> bool {
    let Some(expected) = name else {
        return false;
    };
    matches!(peek(stream).await, Ok(Hello::Name(name)) if name == expected.as_str())
}

/// Peeks at the ClientHello.
///
/// # Errors
/// The connection failed.
pub async fn peek(stream: &TcpStream) -> io::Result<Hello> {
    let deadline = Instant::now() + HELLO_TIMEOUT;
    let mut buffer = vec![0; MAX_HELLO];
    let mut seen = 0;
    loop {
        let Ok(peeked) = timeout_at(deadline, stream.peek(&mut buffer)).await else {
            return Ok(Hello::NotTls);
        };
        let length = peeked?;
        if length == 0 {
            return Ok(Hello::NotTls);
        }
        if length > seen {
            seen = length;
            if let Some(hello) = parse(buffer.get(..length).unwrap_or_default()) {
                return Ok(hello);
            }
        }
        if length == MAX_HELLO {
            return Ok(Hello::NotTls);
        }
        // Peeked bytes keep the socket readable, so readiness cannot tell when more arrive.
        sleep(PEEK_INTERVAL).await;
    }
}

/// Parses the bytes so far; returns `None` when more are needed.
pub fn parse(bytes: &[u8]) -> Option<Hello> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Some(Hello::NotTls);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return Some(match accepted.client_hello().server_name() {
                    Some(name) => Hello::Name(name.to_ascii_lowercase()),
                    None => Hello::Nameless,
                });
            }
            Err(_) => return Some(Hello::NotTls),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_hello(name: &str) -> Vec<u8> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn finds_the_name_whatever_the_fragmentation() {
        let hello = client_hello("API.example.com");
        assert_eq!(parse(&hello), Some(Hello::Name("api.example.com".into())));
        for end in 1..hello.len() {
            assert_eq!(parse(&hello[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn an_address_is_no_server_name() {
        assert_eq!(parse(&client_hello("192.0.2.1")), Some(Hello::Nameless));
    }

    #[test]
    fn anything_else_is_not_tls() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n\r\n"), Some(Hello::NotTls));
        assert_eq!(parse(&[0x16, 3, 1, 0xff, 0xff, 1]), Some(Hello::NotTls));
    }
}
