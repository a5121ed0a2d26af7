//! Placement constraints, in Swarm's grammar: `key == value` and `key != value`.

use std::fmt;
use std::str::FromStr;

use crate::Node;

/// Where a task may run. Values compare without regard to case, label keys with, as in SwarmKit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Constraint {
    pub subject: Subject,
    pub comparison: Comparison,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Hostname,
    Label(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Comparison {
    Is,
    IsNot,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConstraint {
    #[error("`{0}` is not a constraint: write `node.labels.disk == ssd` or `node.hostname != n1`")]
    Malformed(String),
    #[error("constraints on `{0}` are not supported yet: use node.hostname or node.labels.KEY")]
    Subject(String),
}

impl Constraint {
    pub fn admits(&self, node: &Node) -> bool {
        let actual = match &self.subject {
            Subject::Hostname => Some(node.name.as_str()),
            Subject::Label(key) => node.labels.get(key).map(String::as_str),
        };
        let equal = actual.is_some_and(|actual| actual.eq_ignore_ascii_case(&self.value));
        match self.comparison {
            Comparison::Is => equal,
            Comparison::IsNot => !equal,
        }
    }
}

impl FromStr for Constraint {
    type Err = InvalidConstraint;

    fn from_str(text: &str) -> Result<Self, InvalidConstraint> {
        let malformed = || InvalidConstraint::Malformed(text.chars().take(200).collect());
        let (key, comparison, value) = if let Some((key, value)) = text.split_once("==") {
            (key.trim(), Comparison::Is, value.trim())
        } else {
            let (key, value) = text.split_once("!=").ok_or_else(malformed)?;
            (key.trim(), Comparison::IsNot, value.trim())
        };
        let plain = |s: &str, more: &str| {
            s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c) || more.contains(c))
        };
        if key.is_empty() || value.is_empty() || !plain(key, "/") || !plain(value, ":/ ") {
            return Err(malformed());
        }
        let subject = match key.strip_prefix("node.labels.") {
            Some(label) if !label.is_empty() => Subject::Label(label.to_owned()),
            _ if key.eq_ignore_ascii_case("node.hostname") => Subject::Hostname,
            _ => return Err(InvalidConstraint::Subject(key.to_owned())),
        };
        Ok(Self { subject, comparison, value: value.to_owned() })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Hostname => f.write_str("node.hostname")?,
            Subject::Label(key) => write!(f, "node.labels.{key}")?,
        }
        let comparison = match self.comparison {
            Comparison::Is => "==",
            Comparison::IsNot => "!=",
        };
        write!(f, " {comparison} {}", self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_reads_back_as_written() {
        for text in ["node.hostname == n1", "node.labels.disk != ssd", "node.labels.a.b == c:d"] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), text);
        }
        assert_eq!("node.hostname==n1".parse::<Constraint>().unwrap().to_string(), "node.hostname == n1");
    }

    #[test]
    fn what_is_not_a_constraint_is_refused() {
        for bad in
            ["", "disk=ssd", "==", "node.labels. == x", "node.labels.a == ", "node.role == manager", "a ~= b"]
        {
            assert!(bad.parse::<Constraint>().is_err(), "{bad:?} was accepted");
        }
    }
}
