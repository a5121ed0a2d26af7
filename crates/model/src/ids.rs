//! Identities. All are allocated by the replicated state, so none is ever used twice.

use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number!(
    /// One machine's identity. Allocated once and never again, not even after the machine's disk is wiped: a Raft node
    /// that came back empty under its old id could vote twice.
    NodeId, "n"
);
number!(
    /// A service's identity; its name may come back with another service behind it.
    ServiceId, "s"
);
number!(
    /// Counts the versions of a service's task template.
    SpecVersion, "v"
);
number!(
    /// A place in the Raft log.
    LogIndex, "#"
);

/// The Raft index of an object's last change: what a compare-and-set names, and what makes a stale writer harmless.
pub type Generation = LogIndex;

/// The cluster's identity, drawn at random when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

/// Names one request of one client, so that sending it again has no second effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

/// One attempt to fill a slot. The sequence counts within the service, so that creating a task twice is a rejected
/// command and not a second container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    pub service: ServiceId,
    pub slot: u32,
    pub sequence: u64,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.service, self.slot, self.sequence)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a task id: it looks like s12-3-45")]
pub struct InvalidTaskId(pub String);

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    fn from_str(text: &str) -> Result<Self, InvalidTaskId> {
        let parse = || {
            let mut parts = text.strip_prefix('s')?.split('-');
            let id = Self {
                service: ServiceId(parts.next()?.parse().ok()?),
                slot: parts.next()?.parse().ok()?,
                sequence: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(id)
        };
        // Only the form that `Display` writes: an id becomes a file name.
        parse().filter(|id| id.to_string() == text).ok_or_else(|| InvalidTaskId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_id_reads_back_as_written_and_in_no_other_form() {
        let id = TaskId { service: ServiceId(12), slot: 3, sequence: 45 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "s1-2", "s1-2-3-4", "s01-2-3", "s+1-2-3", "1-2-3", "s1-2-3/", "../s1-2-3"] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad:?} was accepted");
        }
    }
}
