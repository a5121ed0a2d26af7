//! One member's identity, ready for connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use model::{ClusterId, Timestamp};
use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::sign::CertifiedKey;

use crate::subject::{from_pem, read_leaf};
use crate::tls::{client_verifier, provider, server_config};
use crate::{CaCertificate, InvalidCertificate, KeyPair, Subject, Validity};

/// A key, a certificate for it, and the authority that signed the certificate; checked to belong together.
///
/// Holders share them in a `watch` channel of `Arc<Credentials>`: a renewed certificate is sent into it and
/// used by the next handshake, open connections stay.
pub struct Credentials {
    ca: CaCertificate,
    subject: Subject,
    validity: Validity,
    identity: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the certificate cannot be used")]
    Certificate(#[source] InvalidCertificate),
    #[error(
        "the certificate of {subject} is of cluster {found}, the certificate authority of cluster {expected}"
    )]
    Cluster { subject: Subject, expected: ClusterId, found: ClusterId },
    #[error("the certificate of {subject} is not valid now, or not from the authority of cluster {cluster}")]
    Untrusted {
        subject: Subject,
        cluster: ClusterId,
        #[source]
        source: rustls::Error,
    },
    #[error("the certificate of {subject} and the key beside it do not belong together")]
    Key {
        subject: Subject,
        #[source]
        source: rustls::Error,
    },
}

impl Credentials {
    /// `certificate` is in PEM form, as [`crate::Authority::issue`] returns it. A certificate that is not
    /// valid at `now` is refused here rather than by everyone who is called with it.
    pub fn new(
        ca: CaCertificate,
        certificate: &str,
        key: &KeyPair,
        now: Timestamp,
    ) -> Result<Self, CredentialsError> {
        let leaf = from_pem(certificate).map_err(CredentialsError::Certificate)?;
        let facts = read_leaf(&leaf).map_err(CredentialsError::Certificate)?;
        let (subject, cluster) = (facts.subject, ca.cluster());
        if facts.cluster != cluster {
            return Err(CredentialsError::Cluster { subject, expected: cluster, found: facts.cluster });
        }
        let at = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        if let Err(source) = client_verifier(&ca).verify_client_cert(&leaf, &[], at) {
            return Err(CredentialsError::Untrusted { subject, cluster, source });
        }
        // The authority goes along for those who know nothing of it but its digest.
        let chain = vec![leaf, ca.der().clone()];
        let identity = match CertifiedKey::from_der(chain, key.private_der(), provider()) {
            Ok(identity) => Arc::new(identity),
            Err(source) => return Err(CredentialsError::Key { subject, source }),
        };
        let server = Arc::new(server_config(&ca, identity.clone()));
        Ok(Self { ca, subject, validity: facts.validity, identity, server })
    }

    pub fn ca(&self) -> &CaCertificate {
        &self.ca
    }

    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn identity(&self) -> &Arc<CertifiedKey> {
        &self.identity
    }

    pub(crate) fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("ca", &self.ca)
            .field("subject", &self.subject)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use model::NodeId;

    use super::*;
    use crate::{Authority, NODE_LIFETIME};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const NODE: Subject = Subject::Node { id: NodeId(3), role: None };

    fn credentials(
        signer: &Authority,
        ca: &Authority,
        now: Timestamp,
    ) -> Result<Credentials, CredentialsError> {
        let key = KeyPair::generate().unwrap();
        let pem = signer.issue(&key.public_key_der(), &NODE, NODE_LIFETIME, NOW).unwrap();
        Credentials::new(ca.certificate().clone(), &pem, &key, now)
    }

    #[test]
    fn credentials_are_refused_unless_they_belong_together() {
        let [ours, theirs] = [1, 2].map(|id| Authority::mint(ClusterId(id), NOW).unwrap());
        let impostor = Authority::mint(ClusterId(1), NOW).unwrap();
        assert_eq!(credentials(&ours, &ours, NOW).unwrap().subject(), &NODE);
        assert!(matches!(credentials(&theirs, &ours, NOW), Err(CredentialsError::Cluster { .. })));
        assert!(matches!(credentials(&impostor, &ours, NOW), Err(CredentialsError::Untrusted { .. })));
        for wrong in [Timestamp(0), Timestamp(NOW.0 - 7_200_000), NOW.plus(NODE_LIFETIME * 2)] {
            assert!(
                matches!(credentials(&ours, &ours, wrong), Err(CredentialsError::Untrusted { .. })),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_certificate_with_the_key_of_another_is_refused() {
        let ca = Authority::mint(ClusterId(1), NOW).unwrap();
        let [one, other] = [0, 1].map(|_| KeyPair::generate().unwrap());
        let pem = ca.issue(&one.public_key_der(), &NODE, NODE_LIFETIME, NOW).unwrap();
        let mixed = Credentials::new(ca.certificate().clone(), &pem, &other, NOW);
        assert!(matches!(mixed, Err(CredentialsError::Key { .. })));
    }
}
