//! What a certificate is about, and who is at the other end of a connection.

use std::fmt;
use std::sync::Arc;

use model::{ClusterId, Name, NodeId, Role, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Node {
        id: NodeId,
        /// What it was admitted as. Certificates from before that was written down say nothing.
        role: Option<Role>,
    },
    /// A person or program that operates the cluster from outside.
    Admin(Name),
}

/// Who is calling. The connection knows it; tonic puts it into the extensions of every request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    Node {
        id: NodeId,
        /// What its certificate says that it was admitted as. [`crate::Membership`] knows whether that counts.
        role: Option<Role>,
    },
    Admin {
        name: Name,
    },
    /// Root of this machine, on the Unix socket.
    Local,
    /// It showed no certificate.
    Joining,
}

/// When a certificate is valid, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// What makes a certificate useless to gantry, whoever signed it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InvalidCertificate {
    // Shared, so that the verifier can carry this error through rustls by reference.
    #[error("it is not a certificate in PEM form")]
    NotPem(#[source] Arc<pem::Error>),
    #[error("it is not an X.509 certificate")]
    NotX509(#[source] X509Error),
    #[error("something follows the certificate")]
    Trailing,
    #[error("it does not name exactly one identity (a URI under spiffe://)")]
    NoIdentity,
    #[error("it names `{0}`, which is no identity of a gantry cluster")]
    UnknownIdentity(String),
    #[error("it is a certificate authority's where a node's or administrator's is needed")]
    Authority,
    #[error("it is not a certificate authority's")]
    NotAnAuthority,
}

/// The facts of a certificate that gantry goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts<S> {
    pub(crate) cluster: ClusterId,
    pub(crate) subject: S,
    pub(crate) validity: Validity,
}

impl Subject {
    /// The SPIFFE ID (<https://github.com/spiffe/spiffe>, X509-SVID section 2): the one URI among the
    /// certificate's names.
    pub fn uri(&self, cluster: ClusterId) -> String {
        match self {
            Self::Node { id, role: None } => format!("spiffe://{cluster}/node/{}", id.0),
            Self::Node { id, role: Some(Role::Manager) } => {
                format!("spiffe://{cluster}/node/{}/manager", id.0)
            }
            Self::Node { id, role: Some(Role::Worker) } => format!("spiffe://{cluster}/node/{}/worker", id.0),
            Self::Admin(name) => format!("spiffe://{cluster}/admin/{name}"),
        }
    }

    /// A node's name for TLS software that verifies a DNS name (`curl`, `openssl s_client -verify_hostname`).
    /// gantry itself compares the URI.
    pub fn dns_name(&self, cluster: ClusterId) -> Option<String> {
        match self {
            Self::Node { id, role: _ } => Some(format!("node-{}.{cluster}.gantry", id.0)),
            Self::Admin(_) => None,
        }
    }
}

/// Reads a URI that [`Subject::uri`] wrote. Any other spelling of the same identity is refused, so that there
/// is one.
fn parse_uri(uri: &str) -> Option<(ClusterId, Subject)> {
    let (cluster, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    let cluster = cluster.parse().ok()?;
    let node = |id: &str, role| Some(Subject::Node { id: NodeId(id.parse().ok()?), role });
    let subject = match path.split('/').collect::<Vec<_>>()[..] {
        ["node", id] => node(id, None)?,
        ["node", id, "manager"] => node(id, Some(Role::Manager))?,
        ["node", id, "worker"] => node(id, Some(Role::Worker))?,
        ["admin", name] => Subject::Admin(name.parse().ok()?),
        _ => return None,
    };
    (subject.uri(cluster) == uri).then_some((cluster, subject))
}

/// The URI of the authority itself: the cluster's trust domain, without a path.
pub(crate) fn authority_uri(cluster: ClusterId) -> String {
    format!("spiffe://{cluster}")
}

fn parse_authority_uri(uri: &str) -> Option<ClusterId> {
    let cluster = uri.strip_prefix("spiffe://")?.parse().ok()?;
    (authority_uri(cluster) == uri).then_some(cluster)
}

/// Whose certificate this is. Says nothing about who signed it.
pub(crate) fn read_leaf(der: &[u8]) -> Result<Facts<Subject>, InvalidCertificate> {
    let certificate = parse(der)?;
    if certificate.is_ca() {
        return Err(InvalidCertificate::Authority);
    }
    let uri = identity_uri(&certificate)?;
    let (cluster, subject) =
        parse_uri(&uri).ok_or_else(|| InvalidCertificate::UnknownIdentity(shown(&uri)))?;
    Ok(Facts { cluster, subject, validity: validity(&certificate) })
}

/// Whose authority this is, and its public key.
pub(crate) fn read_authority(der: &[u8]) -> Result<Facts<Vec<u8>>, InvalidCertificate> {
    let certificate = parse(der)?;
    if !certificate.is_ca() {
        return Err(InvalidCertificate::NotAnAuthority);
    }
    let uri = identity_uri(&certificate)?;
    let cluster =
        parse_authority_uri(&uri).ok_or_else(|| InvalidCertificate::UnknownIdentity(shown(&uri)))?;
    let key = certificate.public_key().subject_public_key.data.to_vec();
    Ok(Facts { cluster, subject: key, validity: validity(&certificate) })
}

/// The first certificate in a text in PEM form.
pub(crate) fn from_pem(text: &str) -> Result<CertificateDer<'static>, InvalidCertificate> {
    CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|error| InvalidCertificate::NotPem(Arc::new(error)))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, InvalidCertificate> {
    let (rest, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| InvalidCertificate::NotX509(error.into()))?;
    if rest.is_empty() { Ok(certificate) } else { Err(InvalidCertificate::Trailing) }
}

fn identity_uri(certificate: &X509Certificate<'_>) -> Result<String, InvalidCertificate> {
    let names = certificate.subject_alternative_name().map_err(InvalidCertificate::NotX509)?;
    let names = names.ok_or(InvalidCertificate::NoIdentity)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.to_owned()),
        _ => Err(InvalidCertificate::NoIdentity),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let millis = |seconds: i64| Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    let validity = certificate.validity();
    Validity { from: millis(validity.not_before.timestamp()), until: millis(validity.not_after.timestamp()) }
}

fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

impl Validity {
    /// When to ask for the next certificate: after 50 to 80 % of this one's life, so that a cluster whose
    /// nodes joined together does not renew together. `chance` is any random number.
    pub fn renew_at(self, chance: u32) -> Timestamp {
        let share = 500 + chance % 301;
        self.from.plus(self.until.since(self.from) / 1000 * share)
    }
}

impl From<Subject> for Peer {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Node { id, role } => Self::Node { id, role },
            Subject::Admin(name) => Self::Admin { name },
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { id, role: _ } => write!(f, "node {id}"),
            Self::Admin(name) => write!(f, "administrator {name}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { id, role: _ } => write!(f, "node {id}"),
            Self::Admin { name } => write!(f, "administrator {name}"),
            Self::Local => f.write_str("root on the local socket"),
            Self::Joining => f.write_str("a caller without a certificate"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_uri_reads_back_as_written_and_in_no_other_form() {
        let cluster = ClusterId(0xabc);
        let node = |role| Subject::Node { id: NodeId(3), role };
        let nodes = [None, Some(Role::Manager), Some(Role::Worker)].map(node);
        for subject in nodes.into_iter().chain([Subject::Admin("ops".parse().unwrap())]) {
            assert_eq!(parse_uri(&subject.uri(cluster)), Some((cluster, subject)));
        }
        let id = cluster.to_string();
        for bad in [
            String::new(),
            format!("spiffe://{id}"),
            format!("spiffe://{id}/node"),
            format!("spiffe://{id}/node/"),
            format!("spiffe://{id}/node/03"),
            format!("spiffe://{id}/node/+3"),
            format!("spiffe://{id}/node/3/"),
            format!("spiffe://{id}/node/3/owner"),
            format!("spiffe://{id}/node/3/Manager"),
            format!("spiffe://{id}/node/3/manager/"),
            format!("spiffe://{id}/node/3/worker/manager"),
            format!("spiffe://{id}/node/99999999999999999999"),
            format!("spiffe://{id}/admin/a/b"),
            format!("spiffe://{id}/manager/3"),
            format!("spiffe://{}/node/3", id.to_uppercase()),
            "spiffe://abc/node/3".to_owned(),
            format!("https://{id}/node/3"),
        ] {
            assert_eq!(parse_uri(&bad), None, "{bad:?} was accepted");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for bad in [&b""[..], b"x", &[0x30, 0x82, 0xff, 0xff], &[0x30; 4096]] {
            assert!(read_leaf(bad).is_err() && read_authority(bad).is_err());
        }
        assert!(matches!(from_pem("-----BEGIN CERTIFICATE-----\n"), Err(InvalidCertificate::NotPem(_))));
    }

    #[test]
    fn a_certificate_is_renewed_in_the_second_half_of_its_life() {
        let validity = Validity { from: Timestamp(0), until: Timestamp(1_000_000) };
        let due: Vec<_> = [0, 150, 300, 301, u32::MAX].map(|chance| validity.renew_at(chance)).to_vec();
        assert_eq!(due[..4], [500_000, 650_000, 800_000, 500_000].map(Timestamp));
        assert!(due.iter().all(|at| at.since(validity.from) <= Duration::from_secs(800)));
    }
}
