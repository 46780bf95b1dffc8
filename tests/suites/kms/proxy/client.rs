//! A proxy with a stand-in for KMS behind it, and a client that signs as an SDK does.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use odyn_kms::attest::Simulated;
use odyn_kms::credentials::{Credentials, CredentialsCache, CredentialsError, CredentialsSource};
use odyn_kms::proxy::{Demands, Dial, Endpoints, Io, Proxy, ProxyParts, serve};
use odyn_kms::sign::{Scope, sign};
use odyn_proto::KmsEndpoint;
use odyn_tests::kms::{StandIn, acceptor, serve as serve_kms};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The instance's credentials, as the stand-in takes them.
pub(crate) const INSTANCE: (&str, &str, &str) = ("AKIAINSTANCE", "instance-hush", "instance-token");
pub(crate) const REGION: &str = "eu-west-1";

/// How a world is made.
pub(crate) struct Wanted {
    pub(crate) demands: Demands,
    /// Whether the proxy trusts the stand-in's certificate.
    pub(crate) trusted: bool,
    pub(crate) answer_timeout: Duration,
    /// moto, behind the stand-in.
    pub(crate) emulator: Option<SocketAddr>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            demands: Demands::default(),
            trusted: true,
            answer_timeout: Duration::from_secs(20),
            emulator: None,
        }
    }
}

/// A proxy and its KMS.
pub(crate) struct World {
    pub(crate) kms: StandIn,
    pub(crate) given: Arc<Mutex<Credentials>>,
    pub(crate) proxy: String,
    direct: u16,
    roots: RootCertStore,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Loopback(u16);

impl Dial for Loopback {
    fn dial(&self, _: &KmsEndpoint) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        let port = self.0;
        Box::pin(async move {
            let socket = TcpStream::connect(("127.0.0.1", port)).await?;
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as Box<dyn Io>)
        })
    }
}

struct Given(Arc<Mutex<Credentials>>);

impl CredentialsSource for Given {
    fn fetch(&self) -> BoxFuture<'_, Result<Credentials, CredentialsError>> {
        let given = self.0.lock().expect("not poisoned").clone();
        Box::pin(async move { Ok(given) })
    }
}

/// The app's credentials.
pub(crate) fn app() -> Credentials {
    Credentials::new("ODYNPROGRAM", "program-hush")
}

/// Credentials as the host gives them.
pub(crate) fn instance(id: &str, secret: &str, token: &str) -> Credentials {
    let json =
        format!(r#"{{"AccessKeyId":"{id}","SecretAccessKey":"{secret}","Token":"{token}"}}"#);
    Credentials::from_json(json.as_bytes()).expect("credentials")
}

pub(crate) async fn world(wanted: Wanted) -> World {
    let directory = tempfile::tempdir().expect("a directory");
    odyn_tests::tls::install(directory.path());
    let file = |name: &str| directory.path().join(name);
    let tls = acceptor(&file("cert.pem"), &file("key.pem")).expect("TLS");
    let mut roots = RootCertStore::empty();
    if wanted.trusted {
        let ca = CertificateDer::from_pem_file(file("ca.pem")).expect("a CA");
        roots.add(ca).expect("a root");
    } else {
        roots = odyn_kms::proxy::web_roots();
    }
    let (id, secret, token) = INSTANCE;
    let kms = StandIn::with_emulator(id, secret, Some(token), wanted.emulator);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let direct = listener.local_addr().expect("an address").port();
    tokio::spawn(serve_kms(kms.clone(), listener, tls));
    let given = Arc::new(Mutex::new(instance(id, secret, token)));
    let endpoint = KmsEndpoint::parse(&format!("kms.shop.example:{direct}"));
    let endpoint = endpoint.expect("an endpoint");
    let proxy = Proxy::new(ProxyParts {
        module: Arc::new(Simulated::new().expect("a module")),
        dial: Arc::new(Loopback(direct)),
        credentials: CredentialsCache::new(Given(Arc::clone(&given))),
        app: app(),
        endpoints: Endpoints::new([(REGION.to_owned(), endpoint)].into()),
        demands: wanted.demands,
        roots: roots.clone(),
        answer_timeout: wanted.answer_timeout,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let stop = CancellationToken::new();
    let proxy = Arc::new(proxy.expect("a proxy"));
    tokio::spawn(serve(proxy, listener, stop.clone()));
    World {
        kms,
        given,
        proxy: address,
        direct,
        roots,
        stop,
    }
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// A member that is base64.
    pub(crate) fn bytes(&self, member: &str) -> Vec<u8> {
        use base64::Engine as _;
        let json = self.json();
        let text = json[member]
            .as_str()
            .unwrap_or_else(|| panic!("no {member}: {json}"));
        let engine = base64::engine::general_purpose::STANDARD;
        engine.decode(text).expect("base64")
    }

    pub(crate) fn is_error(&self, status: u16, code: &str) -> String {
        let json = self.json();
        assert_eq!(
            (self.status.as_u16(), &json["__type"]),
            (status, &code.into()),
            "{json}"
        );
        json["message"].as_str().unwrap_or_default().to_owned()
    }
}

impl World {
    /// An action, as an SDK asks for it.
    pub(crate) async fn ask(&self, action: &str, body: &str) -> Answer {
        let headers = self.signed(action, body, &app(), "kms");
        self.send(headers, body).await
    }

    pub(crate) fn signed(
        &self,
        action: &str,
        body: &str,
        credentials: &Credentials,
        service: &str,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let target = format!("TrentService.{action}");
        for (name, value) in [
            ("host", self.proxy.as_str()),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", &target),
        ] {
            headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        let scope = Scope {
            region: REGION.to_owned(),
            service: service.to_owned(),
        };
        let url = format!("http://{}/", self.proxy);
        let now = SystemTime::now();
        let body = body.as_bytes();
        sign(
            &Method::POST,
            &url,
            &mut headers,
            body,
            &scope,
            credentials,
            now,
        )
        .expect("signed");
        headers
    }

    /// Headers of GenerateDataKey, for KMS itself or for the proxy.
    pub(crate) fn headers_for(&self, is_direct: bool, body: &str) -> HeaderMap {
        let (id, secret, token) = INSTANCE;
        match is_direct {
            true => self.signed("GenerateDataKey", body, &instance(id, secret, token), "kms"),
            false => self.signed("GenerateDataKey", body, &app(), "kms"),
        }
    }

    /// TLS to the stand-in, whatever its certificate.
    pub(crate) async fn direct_tls(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let socket = TcpStream::connect(("127.0.0.1", self.direct))
            .await
            .expect("KMS");
        socket.set_nodelay(true).expect("a socket");
        let name = "kms.shop.example".try_into().expect("a name");
        connector.connect(name, socket).await.expect("TLS")
    }

    pub(crate) async fn send(&self, headers: HeaderMap, body: &str) -> Answer {
        self.send_to("/", headers, body).await
    }

    /// The same to another path or with a query.
    pub(crate) async fn send_to(&self, target: &str, headers: HeaderMap, body: &str) -> Answer {
        let socket = TcpStream::connect(&self.proxy).await.expect("the proxy");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.parse().expect("a target");
        *request.headers_mut() = headers;
        let response = sender.send_request(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }
}
