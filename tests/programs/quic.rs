//! A QUIC server and client for the tests.
//!
//! `odyn-quic serve ADDR:PORT CERT KEY` echoes every stream and datagram.
//! `odyn-quic fetch HOST:PORT NAME CA BYTES` sends that many bytes over eight
//! streams at once, checks that each comes back, then a datagram, and prints
//! a line.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

const ALPN: &[u8] = b"odyn-test";
const STREAMS: usize = 8;

#[tokio::main]
async fn main() -> Result<()> {
    // The workspace has two; rustls does not choose by itself then.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", address, certificate, key] => serve(address, certificate, key).await,
        ["fetch", peer, name, ca, bytes] => fetch(peer, name, ca, bytes.parse()?).await,
        _ => bail!("see the source for usage"),
    }
}

async fn serve(address: &str, certificate: &str, key: &str) -> Result<()> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let endpoint = quinn::Endpoint::server(config, address.parse()?)?;
    println!("ready");
    std::io::stdout().flush()?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                echo(connection).await;
            }
        });
    }
    Ok(())
}

async fn echo(connection: quinn::Connection) {
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((mut send, mut receive)) = stream else { return };
                tokio::spawn(async move {
                    if tokio::io::copy(&mut receive, &mut send).await.is_ok() {
                        let _ = send.finish();
                    }
                });
            }
            datagram = connection.read_datagram() => {
                let Ok(datagram) = datagram else { return };
                let _ = connection.send_datagram(datagram);
            }
        }
    }
}

async fn fetch(peer: &str, name: &str, ca: &str, bytes: usize) -> Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let mut tls = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    // QUIC takes no notice of ICMP errors: silence is all that a refused peer is.
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(std::time::Duration::from_secs(5).try_into()?));
    config.transport_config(Arc::new(transport));

    let peer: SocketAddr = peer.to_socket_addrs()?.next().context("no address")?;
    let local = match peer {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint = quinn::Endpoint::client(local)?;
    let connection = endpoint.connect_with(config, peer, name)?.await?;
    let streams: Vec<_> = (0..STREAMS)
        .map(|number| tokio::spawn(exchange(connection.clone(), number, bytes / STREAMS)))
        .collect();
    for stream in streams {
        stream.await??;
    }
    connection.send_datagram(b"datagram".as_slice().into())?;
    let back = connection.read_datagram().await?;
    ensure!(&back[..] == b"datagram", "another datagram came back");
    connection.close(0_u32.into(), b"done");
    endpoint.wait_idle().await;
    println!("quic ok {bytes}");
    Ok(())
}

async fn exchange(connection: quinn::Connection, number: usize, bytes: usize) -> Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let sent: Vec<u8> = (0..bytes).map(|at| (at * 7 + number) as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        send.write_all(&copy).await?;
        send.finish()?;
        anyhow::Ok(())
    });
    let back = receive.read_to_end(bytes).await?;
    writer.await??;
    ensure!(back == sent, "stream {number} came back changed");
    Ok(())
}
