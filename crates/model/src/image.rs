//! Images by name and by content.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Bytes, NodeId, Origin, Timestamp};

/// The SHA-256 of some content. Written `sha256:<64 hex digits>`, the only algorithm that gantry stores by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: it looks like sha256: and 64 hex digits in lower case")]
pub struct InvalidDigest(pub String);

impl Digest {
    /// The 64 hex digits without the algorithm: what file names are made of.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
    }

    /// The first twelve digits, as Docker shows an id.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.short())
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let bad = || InvalidDigest(text.chars().take(100).flat_map(char::escape_debug).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?.as_bytes();
        if hex.len() != 64 {
            return Err(bad());
        }
        let digit = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(bad()),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

/// A normalised image name, `repository:tag`, by the grammar of Docker's reference package: `nginx` is `nginx:latest`. Or a
/// name of content that never changes, `repository@sha256:…`, whose tag, if it has one, is only for its reader.
///
/// Docker's implied `docker.io/library/` is not added: what is stored is what the user calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImageName {
    #[error("an image name cannot be empty")]
    Empty,
    #[error("`{0}` is too long for an image name (255 characters at most)")]
    TooLong(String),
    #[error(
        "`{0}` is not an image name: it looks like nginx, nginx:1.22 or registry.example:5000/team/app:v1"
    )]
    Malformed(String),
    #[error("`{0}` names no image by digest: it looks like nginx@sha256: and 64 hex digits in lower case")]
    NotADigest(String),
}

impl ImageName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The content that the name says it stands for, of a manifest or an index. A tag says nothing.
    pub fn digest(&self) -> Option<Digest> {
        let (_, digest) = self.0.split_once('@')?;
        digest.parse().ok()
    }

    /// With its registry if it names one, without tag and digest.
    pub fn repository(&self) -> &str {
        let named = self.0.split_once('@').map_or(self.0.as_str(), |(named, _)| named);
        split_tag(named).0
    }

    /// What a name without a digest always has.
    pub fn tag(&self) -> Option<&str> {
        let named = self.0.split_once('@').map_or(self.0.as_str(), |(named, _)| named);
        split_tag(named).1
    }
}

/// A registry's port is no tag.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[last..].split_once(':') {
        Some((name, tag)) => (&text[..last + name.len()], Some(tag)),
        None => (text, None),
    }
}

impl FromStr for ImageName {
    type Err = InvalidImageName;

    fn from_str(text: &str) -> Result<Self, InvalidImageName> {
        let shown = || text.chars().take(100).flat_map(char::escape_debug).collect::<String>();
        if text.is_empty() {
            return Err(InvalidImageName::Empty);
        }
        let (named, digest) =
            text.split_once('@').map_or((text, None), |(named, digest)| (named, Some(digest)));
        if named.len() > 255 {
            return Err(InvalidImageName::TooLong(shown()));
        }
        let (repository, tag) = split_tag(named);
        if !is_repository(repository) || !tag.is_none_or(is_tag) {
            return Err(InvalidImageName::Malformed(shown()));
        }
        match (digest, tag) {
            (None, None) => Ok(Self(format!("{repository}:latest"))),
            (None, Some(_)) => Ok(Self(named.to_owned())),
            (Some(digest), _) if digest.parse::<Digest>().is_ok() => Ok(Self(text.to_owned())),
            (Some(_), _) => Err(InvalidImageName::NotADigest(shown())),
        }
    }
}

fn is_tag(tag: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    (1..=128).contains(&tag.len()) && tag.bytes().all(inner) && !tag.starts_with(['.', '-'])
}

fn is_repository(repository: &str) -> bool {
    let mut parts = repository.split('/').peekable();
    // The first of several components is a registry when it has a dot or a port or is localhost, as in Docker.
    let first = parts.peek().copied().unwrap_or_default();
    if repository.contains('/') && (first.contains(['.', ':']) || first == "localhost") {
        parts.next();
        if !is_registry(first) {
            return false;
        }
    }
    parts.all(is_path_component)
}

pub(crate) fn is_registry(host: &str) -> bool {
    let (host, port) = host.split_once(':').unwrap_or((host, "443"));
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.split('.').all(label) && port.parse::<u16>().is_ok_and(|p| p > 0)
}

pub(crate) fn is_path_component(component: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    // Between two letters or digits: one dot, one or two underscores, or any number of dashes.
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|c| c == b'-'))
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One image that the cluster keeps, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Of the manifest.
    pub digest: Digest,
    /// The sum of its compressed or uncompressed layers, as the manifest has them, and its configuration. 0 as long as
    /// nobody has looked: a registry that is asked what a name stands for does not say.
    pub size: Bytes,
    /// When the cluster first heard of it.
    pub imported: Timestamp,
    /// Whom the controllers told to keep a copy, and since when each of them has said that it does.
    pub copies: BTreeMap<NodeId, Option<Timestamp>>,
    /// Where it can be pulled from, if a registry has said that it has it.
    pub origin: Option<Origin>,
    /// Since when no service's template is made from it; `None` while one is.
    pub idle: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_name_is_normalised() {
        for (text, name) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.22", "nginx:1.22"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("reg.example.com/team/app:v1.2_3", "reg.example.com/team/app:v1.2_3"),
            ("a__b--c.d", "a__b--c.d:latest"),
        ] {
            assert_eq!(text.parse::<ImageName>().map(|n| n.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn a_name_by_digest_is_kept_as_it_stands() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        for (named, repository, tag) in [
            ("nginx", "nginx", None),
            ("nginx:1.22", "nginx", Some("1.22")),
            ("localhost:5000/a/b", "localhost:5000/a/b", None),
        ] {
            let name: ImageName = format!("{named}@{digest}").parse().unwrap();
            assert_eq!(name.as_str(), format!("{named}@{digest}"));
            assert_eq!(name.digest(), digest.parse().ok());
            assert_eq!((name.repository(), name.tag()), (repository, tag));
        }
        let plain: ImageName = "localhost:5000/a/b".parse().unwrap();
        assert_eq!(
            (plain.digest(), plain.repository(), plain.tag()),
            (None, "localhost:5000/a/b", Some("latest"))
        );
    }

    #[test]
    fn a_malformed_image_name_is_refused() {
        for bad in [
            "",
            "Nginx",
            "../x",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:-x",
            "a..b",
            "a___b",
            "a\n",
            "a b",
            "-a",
            "a@sha256:00",
            "a@",
            "@sha256:00",
            "a@b@c",
            "x:y:z",
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_digest_reads_back_and_nothing_else_is_one() {
        let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        for bad in ["", "sha256:", "sha512:00", "sha256:../../x", &text.to_uppercase(), &format!("{text}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was accepted");
        }
    }
}
