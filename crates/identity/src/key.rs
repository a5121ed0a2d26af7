//! Private keys. All are ECDSA on P-256: small, fast, and what every TLS implementation has.

use std::fmt;

use model::Digest;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A private key and its public half. `Debug` shows the public half.
#[derive(Debug)]
pub struct KeyPair(rcgen::KeyPair);

/// A text that must not end up in a log: it has no `Display`, and its `Debug` hides it.
#[derive(Clone)]
pub struct Secret(String);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("no key could be generated")]
    Generate(#[source] rcgen::Error),
    #[error("it is not a P-256 private key in PEM form (PKCS #8)")]
    Malformed(#[source] rcgen::Error),
}

impl KeyPair {
    /// Draws a new key from the operating system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(KeyError::Generate)
    }

    /// Reads what [`KeyPair::to_pem`] wrote.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(KeyError::Malformed)
    }

    /// The private key, PKCS #8 in PEM form.
    pub fn to_pem(&self) -> Secret {
        Secret(self.0.serialize_pem())
    }

    /// The public half as a DER `SubjectPublicKeyInfo` (RFC 5480): all that a certificate is asked for with.
    pub fn public_key_der(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&self.0)
    }

    /// The public half as a point on the curve, as it stands in certificates.
    pub(crate) fn public_point(&self) -> &[u8] {
        self.0.public_key_raw()
    }

    pub(crate) fn signer(&self) -> &rcgen::KeyPair {
        &self.0
    }

    pub(crate) fn private_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for a file that only root may read, or for the one connection that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    Digest(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_written() {
        let key = KeyPair::generate().unwrap();
        let again = KeyPair::from_pem(key.to_pem().expose()).unwrap();
        assert_eq!(key.public_key_der(), again.public_key_der());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let pem = KeyPair::generate().unwrap().to_pem();
        let truncated = &pem.expose()[..pem.expose().len() / 2];
        let other_curve =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        for bad in ["", "x", truncated, &other_curve] {
            assert!(matches!(KeyPair::from_pem(bad), Err(KeyError::Malformed(_))), "{bad:?} was accepted");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = KeyPair::generate().unwrap();
        // Where the scalar stands in the PKCS #8 form that ring writes; the public point follows it.
        let scalar = hex::encode(&key.private_der().secret_der()[36..68]);
        assert_eq!(format!("{:?}", key.to_pem()), "Secret(..)");
        let shown = format!("{key:?}");
        assert!(shown.contains("elided") && !shown.contains(&scalar), "{shown}");
    }
}
