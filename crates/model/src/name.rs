//! Names that users choose. A name ends up in DNS, in paths and in labels, so it is a DNS label (RFC 1123).

use std::fmt;
use std::str::FromStr;

/// One DNS label: 1 to 63 of `a-z`, `0-9` and `-`, with a letter or digit at either end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("a name cannot be empty")]
    Empty,
    #[error("`{0}` has {1} characters; a name has 63 at most")]
    TooLong(String, usize),
    #[error("`{0}` is not a DNS label: use a-z, 0-9 and `-`, with a letter or digit at either end")]
    NotALabel(String),
    #[error("`{0}` is not a service: write it as STACK/SERVICE")]
    NotAService(String),
}

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        let shown = || text.chars().take(80).flat_map(char::escape_debug).collect::<String>();
        if text.len() > 63 {
            return Err(InvalidName::TooLong(shown(), text.chars().count()));
        }
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if !text.bytes().all(inner) || text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidName::NotALabel(shown()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `stack/service`, the name by which users know a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceName {
    pub stack: Name,
    pub service: Name,
}

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let Some((stack, service)) = text.split_once('/') else {
            return Err(InvalidName::NotAService(
                text.chars().take(80).flat_map(char::escape_debug).collect(),
            ));
        };
        Ok(Self { stack: stack.parse()?, service: service.parse()? })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stack, self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "web", "web-1", "0x", &"a".repeat(63)] {
            assert_eq!(good.parse::<Name>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "Web", "a.b", "a_b", "a b", "ü", "a\n", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_service_name_has_two_parts() {
        assert_eq!("hello/web".parse::<ServiceName>().unwrap().to_string(), "hello/web");
        for bad in ["web", "a/b/c", "/web", "hello/"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?} was accepted");
        }
    }
}
