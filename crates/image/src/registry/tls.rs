//! Whom a registry's certificate is believed.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Never the process's default, so that no other crate's choice matters here.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

#[derive(Debug, thiserror::Error)]
pub enum InvalidCa {
    #[error("it is not PEM")]
    Pem(#[source] pem::Error),
    #[error("it has no certificate")]
    Empty,
    #[error("a certificate in it cannot be used")]
    Certificate(#[source] rustls::Error),
}

/// Against what a certificate is held.
#[derive(Debug)]
enum Verifier {
    /// For registries that are marked as insecure: whoever answers is believed.
    Anyone,
    Known {
        roots: RootCertStore,
        /// Believed as they are, as Docker does: `openssl req -x509`, which is how people make a registry's
        /// certificate, makes one that is its own authority, and path building has no place for those.
        given: Vec<CertificateDer<'static>>,
    },
}

/// The certificates of a `ca` setting.
pub(super) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, InvalidCa> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(InvalidCa::Pem)?;
    if found.is_empty() {
        return Err(InvalidCa::Empty);
    }
    for certificate in &found {
        RootCertStore::empty().add(certificate.clone()).map_err(InvalidCa::Certificate)?;
    }
    Ok(found)
}

/// What this machine trusts: nothing at all where no certificates are installed. Reads files.
pub(super) fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::debug!(%error, "some of this machine's certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(loaded.certs);
    if taken == 0 {
        tracing::warn!("this machine has no CA certificates (Debian: ca-certificates)");
    }
    roots
}

/// Certificates that the system or `given` vouches for.
pub(super) fn verified(system: &RootCertStore, given: Vec<CertificateDer<'static>>) -> ClientConfig {
    let mut roots = system.clone();
    // What cannot be an authority was refused when the settings were read.
    roots.add_parsable_certificates(given.iter().cloned());
    config(Verifier::Known { roots, given })
}

pub(super) fn unverified() -> ClientConfig {
    config(Verifier::Anyone)
}

fn config(verifier: Verifier) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites of TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (roots, given) = match self {
            Self::Anyone => return Ok(ServerCertVerified::assertion()),
            Self::Known { roots, given } => (roots, given),
        };
        let leaf = ParsedCertificate::try_from(end_entity)?;
        if !given.iter().any(|certificate| certificate.as_ref() == end_entity.as_ref()) {
            let algorithms = PROVIDER.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&leaf, roots, intermediates, now, algorithms)?;
        }
        verify_server_name(&leaf, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_setting_is_one_or_more_certificates() {
        let certificate = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap().pem()
        };
        assert_eq!(certificates(&certificate("a")).unwrap().len(), 1);
        assert_eq!(certificates(&format!("{}{}", certificate("a"), certificate("b"))).unwrap().len(), 2);
        assert!(matches!(certificates(""), Err(InvalidCa::Empty)));
        assert!(matches!(certificates("hello"), Err(InvalidCa::Empty)));
        let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(matches!(certificates(garbage), Err(InvalidCa::Certificate(_))));
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(certificates(broken), Err(InvalidCa::Pem(_))));
    }
}
