//! The cluster's certificate authority: its key, its certificate, and what it signs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use model::{ClusterId, Digest, Timestamp};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::key::sha256;
use crate::subject::{Facts, authority_uri, from_pem, read_authority};
use crate::{InvalidCertificate, KeyError, KeyPair, Secret, Subject, Validity};

/// How long a node's certificate lives: long enough that a cluster survives a fortnight of nobody looking,
/// renewal beginning at half of it; short enough that renewal is exercised.
pub const NODE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long an administrator's certificate lives. There is no revocation list: its end is what takes it back.
pub const ADMIN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Swarm's figure. Replacing an authority touches every node, so it outlives the hardware.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// A certificate is valid from a little before it was made, for nodes whose clocks are behind.
const BACKDATED_MILLIS: u64 = 3_600_000;

/// RFC 5480: what stands before the point in the `SubjectPublicKeyInfo` of an uncompressed P-256 key.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The authority's public side: what everyone in the cluster trusts.
#[derive(Clone)]
pub struct CaCertificate {
    pem: String,
    der: CertificateDer<'static>,
    facts: Facts<Vec<u8>>,
    roots: Arc<RootCertStore>,
}

/// The authority with its key: what managers sign with.
#[derive(Debug)]
pub struct Authority {
    certificate: CaCertificate,
    key: KeyPair,
}

#[derive(Debug, thiserror::Error)]
pub enum MintAuthorityError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Certificate(#[from] IssueError),
    #[error("the new certificate authority cannot be read back")]
    Unreadable(#[source] InvalidCertificate),
}

#[derive(Debug, thiserror::Error)]
pub enum LoadAuthorityError {
    #[error("the certificate authority's certificate cannot be used")]
    Certificate(#[source] InvalidCertificate),
    #[error("the certificate authority's key cannot be used")]
    Key(#[source] KeyError),
    #[error("the certificate authority of cluster {0} and the key beside it do not belong together")]
    Mismatch(ClusterId),
}

#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    PublicKey(#[from] InvalidPublicKey),
    #[error("no certificate can be valid around {0:?}: the clock is wrong")]
    Time(Timestamp),
    #[error("the operating system gave no randomness for a serial number")]
    Randomness,
    #[error("the certificate of {name} could not be made")]
    Sign {
        name: String,
        #[source]
        source: rcgen::Error,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the public key of an uncompressed P-256 point (a DER SubjectPublicKeyInfo of 91 bytes)")]
pub struct InvalidPublicKey;

/// A public key that someone asks a certificate for. Whether they hold its private half shows in every
/// handshake.
struct RequestedKey<'a>(&'a [u8]);

impl<'a> RequestedKey<'a> {
    /// The point alone is taken from the request; there is nothing else in it that a caller could choose.
    fn parse(der: &'a [u8]) -> Result<Self, InvalidPublicKey> {
        match der.strip_prefix(&P256_PREFIX) {
            Some(point) if point.len() == 65 && point[0] == 4 => Ok(Self(point)),
            _ => Err(InvalidPublicKey),
        }
    }
}

/// The digest by which a public key is known; of one only that [`Authority::issue`] signs.
pub fn key_digest(public_key: &[u8]) -> Result<Digest, InvalidPublicKey> {
    RequestedKey::parse(public_key).map(|_| sha256(public_key))
}

impl PublicKeyData for RequestedKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl CaCertificate {
    /// Reads what [`CaCertificate::pem`] gave. Whether to trust it is for the caller to know, by its digest
    /// or by where it came from.
    pub fn from_pem(text: &str) -> Result<Self, InvalidCertificate> {
        let der = from_pem(text)?;
        let (facts, roots) = trust(&der)?;
        Ok(Self { pem: text.to_owned(), der, facts, roots: Arc::new(roots) })
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The SHA-256 of its DER form: what join tokens name it by.
    pub fn digest(&self) -> Digest {
        sha256(&self.der)
    }

    pub fn cluster(&self) -> ClusterId {
        self.facts.cluster
    }

    pub fn validity(&self) -> Validity {
        self.facts.validity
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }
}

/// What trusting this authority, and no other, means to the verifier.
pub(crate) fn trust(der: &CertificateDer<'_>) -> Result<(Facts<Vec<u8>>, RootCertStore), InvalidCertificate> {
    let facts = read_authority(der)?;
    let mut roots = RootCertStore::empty();
    roots.add(der.clone()).map_err(|_| InvalidCertificate::NotAnAuthority)?;
    Ok((facts, roots))
}

impl Authority {
    /// Makes the authority of a new cluster.
    pub fn mint(cluster: ClusterId, now: Timestamp) -> Result<Self, MintAuthorityError> {
        let key = KeyPair::generate()?;
        let name = authority_name(cluster);
        let mut params = certificate_params(
            &name,
            vec![SanType::URI(ia5(authority_uri(cluster)))],
            now,
            now.plus(AUTHORITY_LIFETIME),
        )?;
        // It signs nodes and administrators, never another authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate =
            params.self_signed(key.signer()).map_err(|source| IssueError::Sign { name, source })?;
        let certificate =
            CaCertificate::from_pem(&certificate.pem()).map_err(MintAuthorityError::Unreadable)?;
        Ok(Self { certificate, key })
    }

    /// Reads the two texts that [`CaCertificate::pem`] and [`Authority::key_pem`] gave.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, LoadAuthorityError> {
        let certificate = CaCertificate::from_pem(certificate).map_err(LoadAuthorityError::Certificate)?;
        let key = KeyPair::from_pem(key).map_err(LoadAuthorityError::Key)?;
        if certificate.facts.subject != key.public_point() {
            return Err(LoadAuthorityError::Mismatch(certificate.cluster()));
        }
        Ok(Self { certificate, key })
    }

    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The private key, PKCS #8 in PEM form. Whoever has it is the cluster.
    pub fn key_pem(&self) -> Secret {
        self.key.to_pem()
    }

    /// Signs a certificate for `subject`, valid from an hour before `now` until `lifetime` after it (or the
    /// authority's own end), and returns it in PEM form. `public_key` is [`KeyPair::public_key_der`]; all
    /// else is decided here.
    pub fn issue(
        &self,
        public_key: &[u8],
        subject: &Subject,
        lifetime: Duration,
        now: Timestamp,
    ) -> Result<String, IssueError> {
        let key = RequestedKey::parse(public_key)?;
        let cluster = self.certificate.cluster();
        let mut names = vec![SanType::URI(ia5(subject.uri(cluster)))];
        names.extend(subject.dns_name(cluster).map(|name| SanType::DnsName(ia5(name))));
        let until = now.plus(lifetime).min(self.certificate.validity().until);
        let name = subject.to_string();
        let mut params = certificate_params(&name, names, now, until)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match subject {
            Subject::Node { .. } => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            // Nobody is to be answered by an administrator's laptop.
            Subject::Admin(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = distinguished_name(&authority_name(cluster));
        let issuer = Issuer::from_params(&issuer, self.key.signer());
        let certificate =
            params.signed_by(&key, &issuer).map_err(|source| IssueError::Sign { name, source })?;
        Ok(certificate.pem())
    }
}

fn authority_name(cluster: ClusterId) -> String {
    format!("gantry {cluster}")
}

/// For people who look at a certificate, and for X.509, which finds an issuer by it. gantry reads no identity
/// from it.
fn distinguished_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn certificate_params(
    name: &str,
    names: Vec<SanType>,
    now: Timestamp,
    until: Timestamp,
) -> Result<CertificateParams, IssueError> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| IssueError::Randomness)?;
    // Positive, and never zero in its first byte, as RFC 5280 section 4.1.2.2 asks.
    serial[0] = serial[0] & 0x3f | 0x40;
    let from = Timestamp(now.0.saturating_sub(BACKDATED_MILLIS));
    let mut params = CertificateParams::default();
    params.not_before = date(from)?;
    params.not_after = date(until)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = distinguished_name(name);
    params.subject_alt_names = names;
    Ok(params)
}

fn date(at: Timestamp) -> Result<OffsetDateTime, IssueError> {
    i64::try_from(at.0 / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(IssueError::Time(at))
}

fn ia5(text: String) -> Ia5String {
    Ia5String::try_from(text).expect("ids and names are ASCII")
}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaCertificate")
            .field("cluster", &self.cluster())
            .field("digest", &self.digest())
            .field("validity", &self.validity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use model::{NodeId, Role};

    use super::*;
    use crate::subject::read_leaf;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const CLUSTER: ClusterId = ClusterId(7);

    #[test]
    fn an_authority_reads_back_as_written() {
        let minted = Authority::mint(CLUSTER, NOW).unwrap();
        let loaded = Authority::from_pem(minted.certificate().pem(), minted.key_pem().expose()).unwrap();
        assert_eq!(loaded.certificate().digest(), minted.certificate().digest());
        assert_eq!(loaded.certificate().cluster(), CLUSTER);
    }

    #[test]
    fn an_authority_with_the_key_of_another_is_refused() {
        let [one, other] = [1, 2].map(|id| Authority::mint(ClusterId(id), NOW).unwrap());
        let loaded = Authority::from_pem(one.certificate().pem(), other.key_pem().expose());
        assert!(matches!(loaded, Err(LoadAuthorityError::Mismatch(ClusterId(1)))));
    }

    #[test]
    fn a_nodes_certificate_is_no_authority() {
        let authority = Authority::mint(CLUSTER, NOW).unwrap();
        let key = KeyPair::generate().unwrap();
        let subject = Subject::Node { id: NodeId(1), role: None };
        let leaf = authority.issue(&key.public_key_der(), &subject, NODE_LIFETIME, NOW).unwrap();
        assert!(matches!(CaCertificate::from_pem(&leaf), Err(InvalidCertificate::NotAnAuthority)));
        let reused = Authority::from_pem(&leaf, key.to_pem().expose());
        assert!(matches!(reused, Err(LoadAuthorityError::Certificate(InvalidCertificate::NotAnAuthority))));
    }

    #[test]
    fn a_certificate_says_what_the_authority_decided() {
        let authority = Authority::mint(CLUSTER, NOW).unwrap();
        let key = KeyPair::generate().unwrap().public_key_der();
        let node = |role| Subject::Node { id: NodeId(3), role };
        let nodes = [None, Some(Role::Manager), Some(Role::Worker)].map(node);
        for subject in nodes.into_iter().chain([Subject::Admin("ops".parse().unwrap())]) {
            let pem = authority.issue(&key, &subject, NODE_LIFETIME, NOW).unwrap();
            let facts = read_leaf(&from_pem(&pem).unwrap()).unwrap();
            let from = Timestamp(NOW.0 - BACKDATED_MILLIS);
            let validity = Validity { from, until: NOW.plus(NODE_LIFETIME) };
            assert_eq!(facts, Facts { cluster: CLUSTER, subject, validity });
        }
    }

    #[test]
    fn no_certificate_outlives_its_authority() {
        let authority = Authority::mint(CLUSTER, NOW).unwrap();
        let key = KeyPair::generate().unwrap().public_key_der();
        let subject = Subject::Node { id: NodeId(3), role: None };
        let pem = authority.issue(&key, &subject, AUTHORITY_LIFETIME * 2, NOW).unwrap();
        let facts = read_leaf(&from_pem(&pem).unwrap()).unwrap();
        assert_eq!(facts.validity.until, authority.certificate().validity().until);
    }

    #[test]
    fn only_a_p256_public_key_is_signed() {
        let authority = Authority::mint(CLUSTER, NOW).unwrap();
        let good = KeyPair::generate().unwrap().public_key_der();
        assert_eq!(good.len(), 91);
        let other_curve = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let trailing = [&good[..], &[0]].concat();
        let subject = Subject::Node { id: NodeId(3), role: None };
        let mut compressed = good.clone();
        compressed[26] = 2;
        for bad in [&good[..0], &good[..90], &trailing, &compressed, &other_curve.subject_public_key_info()] {
            let issued = authority.issue(bad, &subject, NODE_LIFETIME, NOW);
            assert!(
                matches!(issued, Err(IssueError::PublicKey(InvalidPublicKey))),
                "{bad:02x?} was accepted"
            );
            assert_eq!(key_digest(bad), Err(InvalidPublicKey), "{bad:02x?} has a digest");
        }
        assert_eq!(key_digest(&good), Ok(sha256(&good)));
    }

    #[test]
    fn an_absurd_clock_is_an_error() {
        let minted = Authority::mint(CLUSTER, Timestamp(u64::MAX));
        assert!(matches!(minted, Err(MintAuthorityError::Certificate(IssueError::Time(_)))));
    }
}
