//! Registries: how they are called, and what the cluster is told of them.

use std::fmt;
use std::str::FromStr;

use crate::image::{is_path_component, is_registry};

/// What Docker Hub is called in image names; its other names mean the same.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_NAMES: [&str; 3] = [DOCKER_HUB, "index.docker.io", "registry-1.docker.io"];

/// What an image's name has at most, and the `library/` that Docker Hub puts before some.
const LONGEST: usize = 255 + 8;

/// A registry as it stands in image names, in lower case: a host name or an address, with a port if it is not the usual one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryName(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a registry: it looks like docker.io, registry.example:5000 or 127.0.0.1:5000")]
pub struct InvalidRegistryName(pub String);

impl RegistryName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegistryName {
    type Err = InvalidRegistryName;

    fn from_str(text: &str) -> Result<Self, InvalidRegistryName> {
        let lower = text.to_ascii_lowercase();
        if text.len() > 255 || !is_registry(&lower) {
            return Err(InvalidRegistryName(shown(text)));
        }
        Ok(Self(if DOCKER_HUB_NAMES.contains(&lower.as_str()) { DOCKER_HUB.to_owned() } else { lower }))
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository of a registry: where an image can be pulled from. Written `docker.io/library/nginx`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    registry: RegistryName,
    repository: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a repository of a registry: it looks like docker.io/library/nginx")]
pub struct InvalidOrigin(pub String);

impl Origin {
    pub fn registry(&self) -> &RegistryName {
        &self.registry
    }

    /// Without the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let bad = || InvalidOrigin(shown(text));
        let (registry, repository) = text.split_once('/').ok_or_else(bad)?;
        let registry = registry.parse().map_err(|_| bad())?;
        if repository.len() > LONGEST || !repository.split('/').all(is_path_component) {
            return Err(bad());
        }
        Ok(Self { registry, repository: repository.to_owned() })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

/// What the cluster is told of one registry. All defaults is what every registry is that it was told nothing of: spoken to
/// over verified https, by nobody in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Who is asked first, in this order, for what is pulled from it.
    pub mirrors: Vec<RegistryName>,
    /// Certificates, as PEM, that are trusted besides the system's.
    pub ca: Vec<String>,
    /// Allows plain http and certificates that nobody vouches for.
    pub insecure: bool,
    pub credential: Option<Credential>,
}

impl Registry {
    /// What a registry may take of every manager's memory and of every snapshot: a chain of certificates has a few KiB.
    pub const MAX_SIZE: usize = 64 << 10;

    /// The length of all text in it.
    pub fn size(&self) -> usize {
        let Self { mirrors, ca, insecure: _, credential } = self;
        let mirrors: usize = mirrors.iter().map(|mirror| mirror.as_str().len()).sum();
        let ca: usize = ca.iter().map(String::len).sum();
        let credential = credential
            .as_ref()
            .map_or(0, |Credential { username, secret }| username.len() + secret.text().len());
        mirrors + ca + credential
    }
}

/// Who the cluster is to one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub username: String,
    pub secret: Secret,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Password(String),
    /// What Docker's credential helpers call so: an OAuth 2 refresh token.
    IdentityToken(String),
}

impl Secret {
    fn text(&self) -> &str {
        match self {
            Self::Password(text) | Self::IdentityToken(text) => text,
        }
    }
}

/// Never the secret: it would end in a log.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(_) => f.write_str("Password(…)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_one_name() {
        for (text, name) in [
            ("docker.io", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("Registry-1.Docker.IO", "docker.io"),
            ("Reg.Example:5000", "reg.example:5000"),
            ("localhost", "localhost"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(text.parse::<RegistryName>().map(|n| n.to_string()), Ok(name.to_owned()), "{text}");
        }
        for bad in ["", "https://reg.example", "reg.example/a", "reg:0", "reg:x", "a b", "-a", "user@reg"] {
            assert!(bad.parse::<RegistryName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_origin_reads_back() {
        for text in ["docker.io/library/nginx", "localhost:5000/a/b", "reg/app"] {
            assert_eq!(text.parse::<Origin>().map(|origin| origin.to_string()), Ok(text.to_owned()));
        }
        for bad in ["", "nginx", "reg/", "/a", "reg/A", "reg/../b", "reg/a:1", "reg/a@b"] {
            assert!(bad.parse::<Origin>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_secret_is_in_no_log_and_counts_for_the_size() {
        for secret in [Secret::Password("hunter2".to_owned()), Secret::IdentityToken("hunter2".to_owned())] {
            let credential = Some(Credential { username: "me".to_owned(), secret });
            let registry = Registry { credential, ..Registry::default() };
            let shown = format!("{registry:?}");
            assert!(shown.contains("me") && !shown.contains("hunter2"), "{shown}");
            assert_eq!(registry.size(), 9);
        }
        assert_eq!(format!("{:?}", Secret::Password("hunter2".to_owned())), "Password(…)");
    }
}
