//! What is where: registry host, repository, and tag or digest.

use std::fmt;
use std::str::FromStr;

use model::{Digest, ImageName, Origin};
use reqwest::Url;

use super::address;
use crate::document::shown;

/// What names without a registry mean, as users write it. Its API answers under another name.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";
const DOCKER_HUB_NAMES: [&str; 3] = [DOCKER_HUB, "index.docker.io", DOCKER_HUB_API];

/// A registry as it stands in image names: a host name or address in lower case, with a port if it is not the usual one.
/// Docker Hub is `docker.io`, by whichever of its names it was called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryHost(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a registry: it looks like docker.io, registry.example:5000 or 127.0.0.1:5000")]
pub struct InvalidRegistryHost(pub String);

impl RegistryHost {
    /// Where image names without a registry lead.
    pub fn docker_hub() -> Self {
        Self(DOCKER_HUB.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host that a URL names.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let host = url.host_str()?;
        match url.port() {
            Some(port) => format!("{host}:{port}").parse().ok(),
            None => host.parse().ok(),
        }
    }

    /// The root of its API.
    pub(super) fn url(&self, scheme: &str) -> Url {
        let host = if self.0 == DOCKER_HUB { DOCKER_HUB_API } else { &self.0 };
        Url::parse(&format!("{scheme}://{host}/")).expect("a registry's host was parsed when it was made")
    }

    pub(super) fn is_loopback(&self) -> bool {
        address::is_loopback(&self.url("https"))
    }
}

impl FromStr for RegistryHost {
    type Err = InvalidRegistryHost;

    fn from_str(text: &str) -> Result<Self, InvalidRegistryHost> {
        let bad = || InvalidRegistryHost(shown(text));
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b".-:[]".contains(&c);
        if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) || text.ends_with(':') {
            return Err(bad());
        }
        let lower = text.to_ascii_lowercase();
        let url = Url::parse(&format!("https://{lower}/")).map_err(|_| bad())?;
        if url.host_str().is_none_or(str::is_empty) || url.port_or_known_default() == Some(0) {
            return Err(bad());
        }
        Ok(if DOCKER_HUB_NAMES.contains(&lower.as_str()) { Self::docker_hub() } else { Self(lower) })
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    host: RegistryHost,
    repository: String,
    target: Target,
}

/// Which of a repository's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Tag(String),
    /// Of a manifest or an index.
    Digest(Digest),
}

impl Reference {
    pub fn host(&self) -> &RegistryHost {
        &self.host
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The image of this digest in the same repository.
    #[must_use]
    pub fn pinned(self, digest: Digest) -> Self {
        Self { target: Target::Digest(digest), ..self }
    }

    /// The image of this digest, of a manifest or an index, in a repository.
    pub fn at(origin: &Origin, digest: Digest) -> Result<Self, InvalidRegistryHost> {
        let (host, repository) = (origin.registry().as_str().parse()?, origin.repository().to_owned());
        Ok(Self { host, repository, target: Target::Digest(digest) })
    }

    /// The repository that it is in.
    pub fn origin(&self) -> Origin {
        let text = format!("{}/{}", self.host, self.repository);
        text.parse().expect("hosts and repositories are those of image names and origins")
    }
}

/// As Docker reads names: without a registry it is Docker Hub, and there a name of one part is in `library`.
impl TryFrom<&ImageName> for Reference {
    type Error = InvalidRegistryHost;

    fn try_from(name: &ImageName) -> Result<Self, InvalidRegistryHost> {
        let target = match (name.digest(), name.tag()) {
            (Some(digest), _) => Target::Digest(digest),
            (None, tag) => Target::Tag(tag.expect("a name without a digest has a tag").to_owned()),
        };
        let path = name.repository();
        let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
        let (host, repository) = match path.split_once('/') {
            Some((first, rest)) if is_host(first) => (first.parse()?, rest),
            Some(_) | None => (RegistryHost::docker_hub(), path),
        };
        let is_official = host == RegistryHost::docker_hub() && !repository.contains('/');
        let repository = if is_official { format!("library/{repository}") } else { repository.to_owned() };
        Ok(Self { host, repository, target })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.target {
            Target::Tag(_) => ':',
            Target::Digest(_) => '@',
        };
        write!(f, "{}/{}{separator}{}", self.host, self.repository, self.target)
    }
}

/// As it stands in the path of a manifest.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str) -> Reference {
        Reference::try_from(&name.parse::<ImageName>().unwrap()).unwrap()
    }

    #[test]
    fn a_name_is_read_as_docker_reads_it() {
        for (name, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("team/app:v1", "docker.io/team/app:v1"),
            ("docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("registry-1.docker.io/team/app", "docker.io/team/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
            ("Reg.Example/app:V1", "reg.example/app:V1"),
        ] {
            assert_eq!(reference(name).to_string(), full, "{name}");
        }
        let digest = Digest([7; 32]);
        for (name, full) in
            [("nginx:1.22", "docker.io/library/nginx"), ("localhost:5000/a/b", "localhost:5000/a/b")]
        {
            let named = reference(&format!("{name}@{digest}"));
            assert_eq!(named.to_string(), format!("{full}@{digest}"));
            assert_eq!(named.origin().to_string(), full);
            assert_eq!(Reference::at(&named.origin(), digest), Ok(named));
        }
        let pinned = reference("nginx").pinned(Digest([0; 32])).to_string();
        assert_eq!(pinned, format!("docker.io/library/nginx@sha256:{}", "0".repeat(64)));
    }

    #[test]
    fn the_api_of_docker_hub_has_a_host_of_its_own() {
        assert_eq!(RegistryHost::docker_hub().url("https").as_str(), "https://registry-1.docker.io/");
        let host: RegistryHost = "127.0.0.1:5000".parse().unwrap();
        assert_eq!(host.url("http").as_str(), "http://127.0.0.1:5000/");
        assert_eq!(RegistryHost::of(&host.url("http")), Some(host));
    }

    #[test]
    fn only_a_host_is_a_registry() {
        for bad in [
            "",
            "a/b",
            "user@host",
            "http://host",
            "host:",
            "host:0",
            "host:99999",
            "a b",
            "host?x",
            "host#x",
            "999.0.0.1",
            "[::1",
            "hôst",
        ] {
            assert!(bad.parse::<RegistryHost>().is_err(), "{bad:?} was accepted");
        }
        for good in ["host", "a.b-c:5000", "[::1]:5000", "10.0.0.1"] {
            assert!(good.parse::<RegistryHost>().is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_address() {
        let is_loopback = |host: &str| host.parse::<RegistryHost>().unwrap().is_loopback();
        assert!(
            ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]:5000"]
                .map(is_loopback)
                .iter()
                .all(|is| *is)
        );
        assert!(
            ["localhost.example", "128.0.0.1", "0.0.0.0", "[::2]", "reg"]
                .map(is_loopback)
                .iter()
                .all(|is| !*is)
        );
    }
}
