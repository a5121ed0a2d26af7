//! The machines.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use crate::{Bytes, MilliCpu, Name, Platform, Timestamp};

/// The longest name or value of a label.
pub const MAX_LABEL: usize = 255;

/// The most labels that the operator gives one node.
pub const MAX_LABELS: usize = 64;

/// One machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: Name,
    pub role: Role,
    /// Where other nodes reach its daemon.
    pub address: SocketAddr,
    /// What the operator says of it.
    pub labels: BTreeMap<String, String>,
    /// What its own configuration says.
    pub engine_labels: BTreeMap<String, String>,
    pub capacity: Capacity,
    /// `None` until it has had a session.
    pub platform: Option<Platform>,
    pub availability: Availability,
    pub liveness: Liveness,
    /// The addresses of its containers.
    pub subnet: Subnet,
    /// gantry's version there.
    pub version: String,
}

impl Node {
    /// The operator's label of this name; where there is none, its own.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).or_else(|| self.engine_labels.get(key)).map(String::as_str)
    }

    /// Whether it is there and wanted for new tasks.
    pub fn takes_tasks(&self) -> bool {
        self.liveness == Liveness::Ready && self.availability == Availability::Active
    }

    /// Every label that it has, as constraints see them.
    pub fn all_labels(&self) -> BTreeMap<&str, &str> {
        let all = self.engine_labels.iter().chain(&self.labels);
        all.map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Votes in the Raft group and serves the API; it runs tasks as well.
    Manager,
    Worker,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
        }
    }
}

/// What a node has to give to tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    pub cpu: MilliCpu,
    pub memory: Bytes,
}

/// What the operator wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Availability {
    Active,
    /// Keeps its tasks and gets no new ones.
    Pause,
    /// Its tasks go elsewhere, each service at the pace of its rollouts; what can go nowhere stays until `until`, and what runs
    /// to its end as well.
    Drain {
        until: Option<Timestamp>,
    },
}

impl Availability {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain { .. } => "drain",
        }
    }
}

/// What the dispatcher knows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// It has never had a session.
    Unknown,
    Ready,
    Down {
        since: Timestamp,
    },
}

/// A /24 or larger of the cluster's range: one node's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet {
    pub base: Ipv4Addr,
    /// The prefix length.
    pub prefix: u8,
}

impl Subnet {
    /// The node's own address in it, the containers' gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + 1)
    }

    /// The addresses that containers may have: all but the base, the gateway and the broadcast address.
    pub fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let base = u32::from(self.base);
        (base + 2..base + (1 << (32 - self.prefix)) - 1).map(Ipv4Addr::from)
    }

    /// How many addresses [`Subnet::hosts`] has.
    pub fn size(&self) -> u32 {
        (1_u32 << (32 - self.prefix)).saturating_sub(3)
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - self.prefix);
        u32::from(address) & mask == u32::from(self.base)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_gives_every_address_but_three() {
        let subnet = Subnet { base: Ipv4Addr::new(10, 1, 2, 0), prefix: 24 };
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 1, 2, 1));
        assert_eq!(subnet.hosts().count(), 253);
        assert_eq!(subnet.size(), 253);
        assert!(subnet.hosts().all(|a| subnet.contains(a) && a != subnet.gateway()));
        assert!(!subnet.contains(Ipv4Addr::new(10, 1, 3, 1)));
    }
}
