//! Placement constraints, in Swarm's grammar: `key == value` and `key != value`; and beyond it `key = value`, which means the
//! first, and sets: `key in (a, b)` and `key not in (a, b)`.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::{Node, NodeId, Role};

/// Where a task may run. Values compare without regard to case, label keys with, as in SwarmKit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    pub attribute: Attribute,
    pub comparison: Comparison,
    /// At least one: the node's is one of them, or none of them.
    pub values: Vec<String>,
}

/// What can be asked of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    /// The operator's, and where there is none of the name, the node's own.
    Label(String),
    /// The node's own, from its configuration. Swarm's engine labels.
    EngineLabel(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Comparison {
    Is,
    IsNot,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConstraint {
    #[error("`{0}` is not a constraint")]
    Malformed(String),
    #[error("a node has no `{0}`")]
    Attribute(String),
    #[error("`{attribute}` is never `{value}`")]
    Value { attribute: Attribute, value: String },
}

impl InvalidConstraint {
    /// What to write instead.
    pub fn hint(&self) -> String {
        match self {
            Self::Malformed(_) => {
                "write `node.labels.disk == ssd`, `node.hostname != n1` or `node.labels.zone in (a, b)`"
                    .to_owned()
            }
            Self::Attribute(_) => {
                let names: Vec<&str> = Attribute::names().collect();
                format!("there are {}, node.labels.NAME and engine.labels.NAME", names.join(", "))
            }
            Self::Value { attribute: Attribute::Role, .. } => "write manager or worker".to_owned(),
            Self::Value { .. } => "write an address, or a network as `10.0.0.0/8`".to_owned(),
        }
    }
}

impl Attribute {
    const PLAIN: &[(&str, Self)] = &[
        ("node.id", Self::Id),
        ("node.hostname", Self::Hostname),
        ("node.ip", Self::Ip),
        ("node.role", Self::Role),
        ("node.platform.os", Self::Os),
        ("node.platform.arch", Self::Arch),
    ];
    const LABEL: &str = "node.labels.";
    const ENGINE_LABEL: &str = "engine.labels.";

    /// The names of those that are no labels.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::PLAIN.iter().map(|(name, _)| *name)
    }

    /// What this is of `node`; `None` where it has none.
    pub fn of<'n>(&self, id: NodeId, node: &'n Node) -> Option<Cow<'n, str>> {
        let platform = node.platform.as_ref();
        match self {
            Self::Id => Some(id.to_string().into()),
            Self::Hostname => Some(node.name.as_str().into()),
            Self::Ip => Some(node.address.ip().to_string().into()),
            Self::Role => Some(node.role.as_str().into()),
            Self::Os => platform.map(|platform| platform.os.as_str().into()),
            Self::Arch => platform.map(|platform| platform.arch.as_str().into()),
            Self::Label(key) => node.label(key).map(Cow::from),
            Self::EngineLabel(key) => node.engine_labels.get(key).map(Cow::from),
        }
    }

    fn is(&self, id: NodeId, node: &Node, value: &str) -> bool {
        match self {
            Self::Ip => Network::parse(value).is_some_and(|network| network.contains(node.address.ip())),
            Self::Id
            | Self::Hostname
            | Self::Role
            | Self::Os
            | Self::Arch
            | Self::Label(_)
            | Self::EngineLabel(_) => {
                self.of(id, node).is_some_and(|actual| actual.eq_ignore_ascii_case(value))
            }
        }
    }

    /// A value as it is compared: an architecture has more than one name.
    fn value(&self, text: &str) -> Result<String, InvalidConstraint> {
        let never = || InvalidConstraint::Value { attribute: self.clone(), value: text.to_owned() };
        match self {
            Self::Arch => Ok(crate::Platform::plain_arch(text).to_owned()),
            Self::Ip if Network::parse(text).is_none() => Err(never()),
            Self::Role
                if ![Role::Manager, Role::Worker].map(Role::as_str).contains(&&*text.to_lowercase()) =>
            {
                Err(never())
            }
            _ => Ok(text.to_owned()),
        }
    }
}

/// An address, or all of a prefix.
struct Network {
    base: IpAddr,
    prefix: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        (prefix <= most).then_some(Self { base, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (u32::from(base) ^ u32::from(address)).checked_shr(32 - self.prefix).unwrap_or_default() != 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                (u128::from(base) ^ u128::from(address)).checked_shr(128 - self.prefix).unwrap_or_default()
                    != 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => true,
        };
        !differs
    }
}

impl Constraint {
    pub fn admits(&self, id: NodeId, node: &Node) -> bool {
        let is_one = self.values.iter().any(|value| self.attribute.is(id, node, value));
        match self.comparison {
            Comparison::Is => is_one,
            Comparison::IsNot => !is_one,
        }
    }
}

impl FromStr for Attribute {
    type Err = InvalidConstraint;

    fn from_str(text: &str) -> Result<Self, InvalidConstraint> {
        let unknown = || InvalidConstraint::Attribute(text.to_owned());
        let label = |prefix: &str| text.strip_prefix(prefix).filter(|key| !key.is_empty()).map(str::to_owned);
        if let Some(key) = label(Self::LABEL) {
            return Ok(Self::Label(key));
        }
        if let Some(key) = label(Self::ENGINE_LABEL) {
            return Ok(Self::EngineLabel(key));
        }
        let plain = Self::PLAIN.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        plain.map(|(_, attribute)| attribute.clone()).ok_or_else(unknown)
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(key) => write!(f, "{}{key}", Self::LABEL),
            Self::EngineLabel(key) => write!(f, "{}{key}", Self::ENGINE_LABEL),
            plain => {
                let name = Self::PLAIN.iter().find(|(_, attribute)| attribute == plain);
                f.write_str(name.map_or("", |(name, _)| name))
            }
        }
    }
}

impl FromStr for Constraint {
    type Err = InvalidConstraint;

    fn from_str(text: &str) -> Result<Self, InvalidConstraint> {
        let malformed = || InvalidConstraint::Malformed(text.chars().take(200).collect());
        let (key, comparison, values) = parts(text).ok_or_else(malformed)?;
        let plain = |s: &str, more: &str| {
            !s.is_empty()
                && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c) || more.contains(c))
        };
        if !plain(key, "/") || values.is_empty() || values.iter().any(|value| !plain(value, ":/ ")) {
            return Err(malformed());
        }
        let attribute: Attribute = key.parse()?;
        let values = values.iter().map(|value| attribute.value(value)).collect::<Result<_, _>>()?;
        Ok(Self { attribute, comparison, values })
    }
}

/// The three parts of what is written, as far as there are three.
fn parts(text: &str) -> Option<(&str, Comparison, Vec<&str>)> {
    for (operator, comparison) in [("==", Comparison::Is), ("!=", Comparison::IsNot), ("=", Comparison::Is)] {
        if let Some((key, value)) = text.split_once(operator) {
            return Some((key.trim(), comparison, vec![value.trim()]));
        }
    }
    let (head, set) = text.trim().strip_suffix(')')?.split_once('(')?;
    let mut words = head.split_whitespace();
    let key = words.next()?;
    let comparison = match (words.next()?.to_ascii_lowercase().as_str(), words.next()) {
        ("in", None) => Comparison::Is,
        ("notin", None) => Comparison::IsNot,
        ("not", Some(second)) if second.eq_ignore_ascii_case("in") && words.next().is_none() => {
            Comparison::IsNot
        }
        _ => return None,
    };
    Some((key, comparison, set.split(',').map(str::trim).collect()))
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attribute, comparison, values } = self;
        match (comparison, values.as_slice()) {
            (Comparison::Is, [value]) => write!(f, "{attribute} == {value}"),
            (Comparison::IsNot, [value]) => write!(f, "{attribute} != {value}"),
            (Comparison::Is, values) => write!(f, "{attribute} in ({})", values.join(", ")),
            (Comparison::IsNot, values) => write!(f, "{attribute} not in ({})", values.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_reads_back_as_written() {
        for text in [
            "node.hostname == n1",
            "node.labels.disk != ssd",
            "node.labels.a.b == c:d",
            "node.id == n3",
            "node.ip == 10.1.0.0/16",
            "node.role == manager",
            "node.platform.os == linux",
            "node.platform.arch != arm64",
            "engine.labels.kernel == 6.1",
            "node.labels.zone in (a, b)",
            "node.labels.zone not in (a, b, c)",
        ] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), text);
        }
        for (text, plain) in [
            ("node.hostname==n1", "node.hostname == n1"),
            ("node.labels.disk=ssd", "node.labels.disk == ssd"),
            ("node.labels.zone IN (a)", "node.labels.zone == a"),
            ("node.labels.zone notin (a,b)", "node.labels.zone not in (a, b)"),
            ("Node.Hostname == n1", "node.hostname == n1"),
            ("node.platform.arch == x86_64", "node.platform.arch == amd64"),
        ] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), plain);
        }
    }

    #[test]
    fn what_is_not_a_constraint_is_refused() {
        for bad in [
            "",
            "disk",
            "==",
            "node.labels. == x",
            "node.labels.a == ",
            "node.role == boss",
            "node.ip == here",
            "node.ip == 10.0.0.0/40",
            "node.label.disk == ssd",
            "a ~= b",
            "node.labels.a > 3",
            "node.labels.a in ()",
            "node.labels.a in (x",
            "node.labels.a out (x)",
        ] {
            assert!(bad.parse::<Constraint>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn an_address_is_in_its_networks() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        for (network, inside, is) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.0.0/16", "10.1.200.4", true),
            ("10.1.0.0/16", "10.2.0.1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
        ] {
            assert_eq!(Network::parse(network).unwrap().contains(address(inside)), is, "{network} {inside}");
        }
    }
}
