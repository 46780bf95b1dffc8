//! The choice of a certificate for a client.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::Certificate;

/// Chooses by the name that the client asks for (SNI), and by the signatures it supports.
#[derive(Debug)]
pub(crate) struct Chooser(Vec<Certificate>);

impl Chooser {
    pub(crate) fn new(certificates: Vec<Certificate>) -> Self {
        Self(certificates)
    }

    /// In order: a name match that the client can verify, any name match, any certificate that the
    /// client can verify, the first certificate.
    fn choose(
        &self,
        server: Option<&str>,
        is_understood: impl Fn(&Certificate) -> bool,
    ) -> Option<&Certificate> {
        let server = server.map(str::to_ascii_lowercase);
        let named = |certificate: &&Certificate| {
            server
                .as_ref()
                .is_some_and(|name| certificate.is_for(name.trim_end_matches('.')))
        };
        let understood = |certificate: &&Certificate| is_understood(certificate);
        let all = || self.0.iter();
        all()
            .filter(named)
            .find(understood)
            .or_else(|| all().find(named))
            .or_else(|| all().find(understood))
            .or_else(|| self.0.first())
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let chosen = self.choose(hello.server_name(), |certificate| {
            certificate.key.key.choose_scheme(schemes).is_some()
        });
        chosen.map(|certificate| Arc::clone(&certificate.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate;

    fn made(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Certificate {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).unwrap();
        let cert = params.self_signed(&key).unwrap();
        Certificate::new(
            certificate::chain(cert.pem().as_bytes()).unwrap(),
            certificate::private_key(key.serialize_pem().as_bytes()).unwrap(),
            &rustls::crypto::aws_lc_rs::default_provider(),
            "cert",
        )
        .unwrap()
    }

    #[test]
    fn the_name_decides_then_the_signature_then_the_order() {
        let ecdsa = &rcgen::PKCS_ECDSA_P256_SHA256;
        let ed = &rcgen::PKCS_ED25519;
        let chooser = Chooser::new(vec![
            made(&["first.example"], ecdsa),
            made(&["*.shop.example", "Shop.Example"], ed),
            made(&["*.shop.example"], ecdsa),
        ]);
        let at = |server, is_understood: &dyn Fn(&Certificate) -> bool| {
            let chosen = chooser.choose(server, is_understood).unwrap();
            chooser.0.iter().position(|c| std::ptr::eq(c, chosen))
        };
        let all = |_: &Certificate| true;
        let no_ed = |c: &Certificate| c.key.key.algorithm() != rustls::SignatureAlgorithm::ED25519;
        for (server, wanted) in [
            (None, 0),
            (Some("first.example"), 0),
            (Some("other.example"), 0),
            (Some("shop.example"), 1),
            (Some("WWW.shop.example."), 1),
            (Some("a.b.shop.example"), 0),
            (Some(".shop.example"), 0),
        ] {
            assert_eq!(at(server, &all), Some(wanted), "{server:?}");
        }
        assert_eq!(at(Some("www.shop.example"), &no_ed), Some(2));
        assert_eq!(at(Some("shop.example"), &no_ed), Some(1), "the name first");
    }
}
