//! Where the tasks of a service may be, and where they had better be.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::{Attribute, Constraint, Name, Node, NodeId, ServiceName};

/// Compose's `deploy.placement` and `platform`, and what `x-gantry.placement` adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacementPolicy {
    /// All must admit a node.
    pub constraints: Vec<Constraint>,
    /// Its tasks are spread evenly over the values of the first, then within each over those of the second.
    pub spread_over: Vec<Attribute>,
    /// So many slots may share a node.
    pub max_per_node: Option<NonZeroU32>,
    pub platform: Option<Platform>,
    /// Services whose nodes it seeks or shuns.
    pub affinities: BTreeSet<Affinity>,
    /// `None` is the cluster's.
    pub strategy: Option<Strategy>,
    pub priority: Priority,
}

/// Which of the nodes that can take a task gets it, if nothing else decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// Where the fewest of the service are, and then the emptiest.
    #[default]
    Spread,
    /// The fullest, so that others stay empty.
    BinPack,
}

/// What goes before what where there is not room for all: a higher one takes the place of lower ones. From
/// [`Priority::LEAST`] to [`Priority::MOST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(pub i16);

impl Priority {
    pub const LEAST: i16 = -1000;
    pub const MOST: i16 = 1000;
}

/// A service's wish to share its nodes with another one, or not to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Affinity {
    /// Of another stack; `None` is the same.
    pub stack: Option<Name>,
    pub service: Name,
    pub wish: Wish,
    /// Rather no node than one that is not so.
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// On nodes where the other is.
    Near,
    /// On nodes where it is not. It holds for the other as well.
    Apart,
}

impl Affinity {
    /// The service that is meant, as seen from one of `stack`.
    pub fn target(&self, stack: &Name) -> ServiceName {
        let stack = self.stack.as_ref().unwrap_or(stack).clone();
        ServiceName { stack, service: self.service.clone() }
    }
}

impl PlacementPolicy {
    /// The first thing that keeps a node from ever taking such a task, whatever else is there.
    pub fn bars(&self, id: NodeId, node: &Node) -> Option<Barred> {
        let is_other = |wanted: &&Platform| !node.platform.as_ref().is_some_and(|has| wanted.admits(has));
        if let Some(platform) = self.platform.as_ref().filter(is_other) {
            return Some(Barred::Platform(platform.clone()));
        }
        let barring = self.constraints.iter().find(|constraint| !constraint.admits(id, node));
        barring.map(|constraint| Barred::Constraint(constraint.clone()))
    }
}

/// What about a node keeps a task from it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Barred {
    Platform(Platform),
    Constraint(Constraint),
}

/// An operating system and an architecture, in Go's words, as images name them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    pub os: String,
    pub arch: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform")]
pub struct InvalidPlatform(pub String);

impl Platform {
    /// The one name of an architecture that has several.
    pub fn plain_arch(name: &str) -> &str {
        match name {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "x86" => "386",
            "armv7l" | "armhf" => "arm",
            other => other,
        }
    }

    /// Whether what is made for this runs on `host`.
    pub fn admits(&self, host: &Self) -> bool {
        self == host
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    /// `linux/amd64`; a variant (`linux/arm64/v8`) is read over, and an architecture alone is Linux'.
    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let is_word =
            |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let (os, arch) = match parts.as_slice() {
            [arch] if *arch != "linux" => ("linux", *arch),
            [os, arch] | [os, arch, _] => (*os, *arch),
            _ => return Err(InvalidPlatform(text.to_owned())),
        };
        if !parts.iter().all(is_word) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        Ok(Self { os: os.to_owned(), arch: Self::plain_arch(arch).to_owned() })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)
    }
}

impl Strategy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spread => "spread",
            Self::BinPack => "binpack",
        }
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Spread, Self::BinPack].into_iter().find(|strategy| strategy.as_str() == text);
        known.ok_or_else(|| format!("`{text}` is not a strategy: write spread or binpack"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_has_one_name() {
        for (text, plain) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("Windows/AMD64", "windows/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), plain, "{text}");
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?} was accepted");
        }
    }
}
