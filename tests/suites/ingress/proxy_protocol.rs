//! The PROXY protocol: to the app, from a load balancer, and both.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use odyn_tests::process::until;
use odyn_tests::tls_client::{Client, close_notify, read_all};
use odyn_tests::{Guest, World};

use super::tls_worlds::{certificate, policy_world};
use super::{ADDRESS, MAPPING, SOON, app, connect, exchange, expected, listening, stop};
use crate::start;

/// The signature of version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2 for these addresses, with TLVs.
fn v2(client: SocketAddr, local: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(client), SocketAddr::V4(local)) = (client, local) else {
        panic!("IPv4 here");
    };
    let mut content = [client.ip().octets(), local.ip().octets()].concat();
    content.extend(client.port().to_be_bytes());
    content.extend(local.port().to_be_bytes());
    content.extend(tlvs);
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    [V2, &[0x21, 0x11], &length, &content].concat()
}

fn line(client: &SocketAddr, local: &str) -> Vec<u8> {
    let local: SocketAddr = local.parse().expect("an address");
    format!(
        "PROXY TCP4 {} {} {} {}\r\n",
        client.ip(),
        local.ip(),
        client.port(),
        local.port()
    )
    .into_bytes()
}

#[test]
fn the_app_is_told_the_address_of_its_client() {
    let mut world = start!(policy_world("proxy_protocol: v1"));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    let stream = connect(&world, ADDRESS).expect("a listener");
    let client = stream.local_addr().expect("a socket");
    let told = [&line(&client, ADDRESS)[..], b"hello"].concat();
    assert_eq!(
        exchange(stream, b"hello").expect("an answer"),
        expected(&told)
    );
    stop(running);

    // Version 2, behind TLS: with what was agreed on.
    let dir = tempfile::tempdir().expect("a directory");
    let (authority, _) = certificate(dir.path());
    let dir = dir.path().display();
    let keys = format!(
        "proxy_protocol: v2\n    tls: {{ cert_file: {dir}/a.pem, key_file: {dir}/a.key, alpn: [h2] }}"
    );
    let mut world = start!(policy_world(&keys));
    let running = app(&mut world, &["after-end", "8080"]);
    let socket = connect(&world, ADDRESS).expect("a listener");
    let client = socket.local_addr().expect("a socket");
    let speaks = Client {
        alpn: vec![b"h2".to_vec()],
        ..Client::default()
    };
    let session = speaks.connect(socket, &authority, "shop.example");
    let mut session = session.expect("a handshake");
    session.write_all(b"hello").expect("a connection");
    close_notify(&mut session).expect("a connection");
    let tlvs = [&b"\x01\0\x02h2\x02\0\x0c"[..], b"shop.example"].concat();
    let head = v2(client, ADDRESS.parse().expect("an address"), &tlvs);
    let told = [&head[..], b"hello"].concat();
    assert_eq!(read_all(&mut session).expect("an answer"), expected(&told));
    stop(running);
}

/// Sends a header as a load balancer does, then a request; the answer to it.
fn balanced(world: &World, header: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(world, ADDRESS)?;
    stream.write_all(header)?;
    exchange(stream, b"hello")
}

#[test]
fn a_load_balancer_is_believed_and_the_app_hears_of_it() {
    let mut world =
        start!(policy_world("proxy_protocol: v1").outer(&["--proxy-from", "8000=0.0.0.0/0",]));
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    let client: SocketAddr = "198.51.100.7:4321".parse().expect("an address");
    let front = "198.51.100.1:443";
    let told = [&line(&client, front)[..], b"hello"].concat();
    for header in [
        line(&client, front),
        v2(client, front.parse().expect("an address"), b"\x04\0\x01x"),
    ] {
        let got = balanced(&world, &header).expect("an answer");
        assert_eq!(got, expected(&told));
    }
    until(SOON, "the records", || running.audit().len() == 2);
    for record in running.audit() {
        assert_eq!(record.client.as_deref(), Some("198.51.100.7:4321"));
    }
    // A health check speaks for the load balancer itself.
    let local = [V2, &[0x20, 0, 0, 0]].concat();
    let got = balanced(&world, &local).expect("an answer");
    let got = String::from_utf8(got).expect("text");
    assert!(got.contains("\nPROXY TCP4 192.0.2.1 192.0.2.2 "), "{got}");
    // A peer that sends no header, half of one, or another, is refused.
    for (sent, ends) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], false),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 02\r\n", false),
        (b"PROXY TCP4 ", true),
    ] {
        let mut stream = connect(&world, ADDRESS).expect("a listener");
        stream.write_all(sent).expect("a connection");
        if ends {
            stream.shutdown(Shutdown::Write).expect("a socket");
        }
        let end = stream.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "{sent:?}");
    }
    assert_eq!(running.audit().len(), 3, "they did not come to the guest");
    stop(running);
}

#[test]
fn who_is_no_load_balancer_can_claim_nothing() {
    let mut world = start!(
        policy_world("proxy_protocol: v1").outer(&["--proxy-from", "198.51.100.1,9000=0.0.0.0/0",])
    );
    if world.direct() {
        return;
    }
    let running = app(&mut world, &["after-end", "8080"]);
    let stream = connect(&world, ADDRESS).expect("a listener");
    let client = stream.local_addr().expect("a socket");
    let claim = b"PROXY TCP4 198.51.100.7 198.51.100.1 1 2\r\n";
    let told = [&line(&client, ADDRESS)[..], claim].concat();
    assert_eq!(exchange(stream, claim).expect("an answer"), expected(&told));
    until(SOON, "the record", || running.audit().len() == 1);
    let said = running.audit()[0].client.clone();
    assert_eq!(said, Some(client.to_string()));
    stop(running);
}

/// An HTTP server in the guest that says what the header told it.
fn nginx(world: &World) -> Guest {
    let dir = world.scratch().display().to_string();
    let config = format!(
        "daemon off; worker_processes 1; pid {dir}/pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:8080 proxy_protocol;
    return 200 \"$proxy_protocol_addr $proxy_protocol_server_port\\n\"; }} }}
"
    );
    let config = world.file("told.conf", config).display().to_string();
    Guest::new(&["nginx", "-e", "stderr", "-c", &config])
}

#[test]
fn haproxy_in_front_and_nginx_behind_understand_it() {
    for (version, sends) in [("v1", "send-proxy"), ("v2", "send-proxy-v2")] {
        let mut world = start!(
            policy_world(&format!("proxy_protocol: {version}"))
                .outer(&["--proxy-from", "192.0.2.1",])
        );
        if world.direct() {
            return;
        }
        let running = nginx(&world).spawn(&world);
        listening(&mut world, MAPPING);
        let config = format!(
            "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n\
             listen front\n  bind 203.0.113.10:80\n  server guest {ADDRESS} {sends}\n"
        );
        let config = world.file("front.cfg", config).display().to_string();
        let _haproxy = world.internet_spawn("haproxy", &["haproxy", "-db", "-f", &config]);
        let mut got = Vec::new();
        until(SOON, "an answer", || {
            let stream = world.internet().enter(|| {
                let address = "203.0.113.10:80".parse().expect("an address");
                TcpStream::connect_timeout(&address, SOON)
            });
            let Ok(mut stream) = stream else {
                return false;
            };
            let request = b"GET / HTTP/1.0\r\n\r\n";
            got.clear();
            stream.write_all(request).is_ok() && stream.read_to_end(&mut got).is_ok()
        });
        let got = String::from_utf8_lossy(&got).into_owned();
        // The client of HAProxy, and the port where it came in.
        assert!(got.ends_with("\r\n203.0.113.10 80\n"), "{sends}: {got}");
        stop(running);
    }
}
