//! Images by name and by content.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Bytes, NodeId, Timestamp};

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

/// A normalised image name, `repository:tag`, by the grammar of Docker's reference package: `nginx` is `nginx:latest`.
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
    #[error("`{0}` names an image by digest, which gantry does not do yet: use a tag")]
    ByDigest(String),
}

impl ImageName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = InvalidImageName;

    fn from_str(text: &str) -> Result<Self, InvalidImageName> {
        let shown = || text.chars().take(100).flat_map(char::escape_debug).collect::<String>();
        if text.is_empty() {
            return Err(InvalidImageName::Empty);
        }
        if text.len() > 255 {
            return Err(InvalidImageName::TooLong(shown()));
        }
        if text.contains('@') {
            return Err(InvalidImageName::ByDigest(shown()));
        }
        let last = text.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match text[last..].split_once(':') {
            Some((name, tag)) => (&text[..last + name.len()], tag),
            None => (text, "latest"),
        };
        if is_repository(repository) && is_tag(tag) {
            Ok(Self(format!("{repository}:{tag}")))
        } else {
            Err(InvalidImageName::Malformed(shown()))
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

fn is_registry(host: &str) -> bool {
    let (host, port) = host.split_once(':').unwrap_or((host, "443"));
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.split('.').all(label) && port.parse::<u16>().is_ok_and(|p| p > 0)
}

fn is_path_component(component: &str) -> bool {
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
    /// The sum of its compressed or uncompressed layers, as the manifest has them, and its configuration.
    pub size: Bytes,
    pub imported: Timestamp,
    /// Whom the controllers told to keep a copy, and since when each of them has said that it does.
    pub copies: BTreeMap<NodeId, Option<Timestamp>>,
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
