//! The TLS that gantry speaks: 1.3 only, one crypto provider, one authority, no resumption, HTTP/2 inside.

use std::io;
use std::sync::{Arc, LazyLock};

use model::{ClusterId, Digest, NodeId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::authority::trust;
use crate::key::sha256;
use crate::subject::read_leaf;
use crate::{CaCertificate, Expect, InvalidCertificate, Subject};

/// Never the process's default, so that no other crate's choice matters here.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// How the machine at the other end is not the one that was called, though its certificate may be in order.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Mismatch {
    #[error("its certificate cannot be used")]
    Certificate(#[source] InvalidCertificate),
    #[error("it belongs to cluster {found}, not to {expected}")]
    Cluster { expected: ClusterId, found: ClusterId },
    #[error("it is node {found}, not node {expected}")]
    Node { expected: NodeId, found: NodeId },
    #[error("it is no node but {0}")]
    NotANode(Subject),
    #[error("it does not belong to the cluster of the join token, whose authority has the digest {0}")]
    Authority(Digest),
}

/// Whom a client trusts to answer it.
#[derive(Debug)]
pub(crate) enum Trust {
    /// A member's view: nodes of its own cluster.
    Member { ca: CaCertificate, expect: Expect },
    /// A joining machine's view: any node that shows an authority with this digest and a certificate from it.
    Pinned(Digest),
}

/// Verifies a server by the URI in its certificate, since nodes are called by address and not by name.
#[derive(Debug)]
struct NodeVerifier(Trust);

pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// Accepts clients of this authority's, and clients without a certificate: what those may call is not TLS's
/// to say.
pub(crate) fn client_verifier(ca: &CaCertificate) -> Arc<dyn ClientCertVerifier> {
    WebPkiClientVerifier::builder_with_provider(ca.roots().clone(), provider().clone())
        .allow_unauthenticated()
        .build()
        .expect("there is a root, and there are no revocation lists")
}

pub(crate) fn server_config(ca: &CaCertificate, identity: Arc<CertifiedKey>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has the cipher suites of TLS 1.3")
        .with_client_cert_verifier(client_verifier(ca))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

pub(crate) fn client_config(trust: Trust, identity: Option<Arc<CertifiedKey>>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has the cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NodeVerifier(trust)));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// The reason that [`NodeVerifier`] gave, if it was it that ended the handshake.
pub(crate) fn mismatch(error: &io::Error) -> Option<Mismatch> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(CertificateError::Other(reason)) = error else { return None };
    reason.0.downcast_ref::<Mismatch>().cloned()
}

impl NodeVerifier {
    /// The authority to go by, and its cluster.
    fn authority(&self, shown: &[CertificateDer<'_>]) -> Result<(ClusterId, Arc<RootCertStore>), Mismatch> {
        match &self.0 {
            Trust::Member { ca, .. } => Ok((ca.cluster(), ca.roots().clone())),
            Trust::Pinned(digest) => {
                let der =
                    shown.iter().find(|der| sha256(der) == *digest).ok_or(Mismatch::Authority(*digest))?;
                let (facts, roots) = trust(der).map_err(Mismatch::Certificate)?;
                Ok((facts.cluster, Arc::new(roots)))
            }
        }
    }

    /// Whether this certificate, which the authority signed, is the one that was expected.
    fn judge(&self, cluster: ClusterId, leaf: &CertificateDer<'_>) -> Result<(), Mismatch> {
        let facts = read_leaf(leaf).map_err(Mismatch::Certificate)?;
        if facts.cluster != cluster {
            return Err(Mismatch::Cluster { expected: cluster, found: facts.cluster });
        }
        let found = match facts.subject {
            Subject::Node { id, role: _ } => id,
            admin @ Subject::Admin(_) => return Err(Mismatch::NotANode(admin)),
        };
        match &self.0 {
            Trust::Member { expect: Expect::Node(expected), .. } if *expected != found => {
                Err(Mismatch::Node { expected: *expected, found })
            }
            Trust::Member { expect: Expect::Node(_) | Expect::AnyNode, .. } | Trust::Pinned(_) => Ok(()),
        }
    }
}

fn refuse(reason: Mismatch) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (cluster, roots) = self.authority(intermediates).map_err(refuse)?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider().signature_verification_algorithms.all;
        // No intermediates: an authority signs nodes itself.
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], now, algorithms)?;
        self.judge(cluster, end_entity).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
