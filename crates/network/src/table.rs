//! What a node's network is to look like, and the names and addresses that derive from it.

use std::net::Ipv4Addr;

use model::{PublishedPort, Subnet, TaskId};
use sha2::{Digest, Sha256};

/// The longest interface name: Linux's `IFNAMSIZ` less the terminating zero.
const NAME_MAX: usize = 15;

/// The bridge that joins this node's containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// The interface's name: 1 to 15 of `a-z`, `A-Z`, `0-9`, `-` and `_`, beginning with a letter.
    pub name: String,
    /// The bridge's own address, by which containers leave.
    pub gateway: Ipv4Addr,
    /// How many bits of the gateway name the containers' subnet: 8 to 30.
    pub prefix: u8,
}

/// One task on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub address: Ipv4Addr,
    pub ports: Vec<PublishedPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBridge {
    #[error("`{0}` cannot name a bridge: use 1 to 15 of a-z, A-Z, 0-9, `-` and `_`, beginning with a letter")]
    Name(String),
    #[error(
        "{gateway}/{prefix} cannot be a bridge's address: the prefix is 8 to 30, and the host part is neither all zeros nor all ones"
    )]
    Address { gateway: Ipv4Addr, prefix: u8 },
}

impl BridgeSpec {
    /// Checks what its fields promise; the name becomes part of a path and of the packet filter's rules.
    pub fn validate(&self) -> Result<(), InvalidBridge> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        let begins_with_letter = self.name.bytes().next().is_some_and(|c| c.is_ascii_alphabetic());
        if self.name.len() > NAME_MAX || !begins_with_letter || !self.name.bytes().all(plain) {
            return Err(InvalidBridge::Name(
                self.name.chars().take(80).flat_map(char::escape_debug).collect(),
            ));
        }
        let invalid = InvalidBridge::Address { gateway: self.gateway, prefix: self.prefix };
        if !(8..=30).contains(&self.prefix) {
            return Err(invalid);
        }
        let host = u32::from(self.gateway) & !self.mask();
        if host == 0 || host == !self.mask() {
            return Err(invalid);
        }
        Ok(())
    }

    /// The containers' subnet. Only of a valid bridge.
    pub fn subnet(&self) -> Subnet {
        Subnet { base: Ipv4Addr::from(u32::from(self.gateway) & self.mask()), prefix: self.prefix }
    }

    /// Whether a member may have this address. Only of a valid bridge.
    pub(crate) fn admits(&self, address: Ipv4Addr) -> bool {
        let host = u32::from(address) & !self.mask();
        self.subnet().contains(address) && address != self.gateway && host != 0 && host != !self.mask()
    }

    fn mask(&self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }
}

/// The host's end of a task's veth pair. 52 bits of a hash, since an id does not fit in 15 characters; the interface's
/// alias holds the id itself, and whoever finds the name compares that.
pub(crate) fn port_name(task: TaskId) -> String {
    let digest: [u8; 32] = Sha256::digest(task.to_string().as_bytes()).into();
    let head = u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"));
    format!("gt{:013x}", head >> 12)
}

/// The hardware address of whoever has this address. Derived, so that an address that passes to another task leaves no
/// stale neighbour entry behind; `02` marks it as locally administered (IEEE 802).
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, b'g', a, b, c, d]
}

#[cfg(test)]
mod tests {
    use model::ServiceId;

    use super::*;

    fn bridge(name: &str, gateway: [u8; 4], prefix: u8) -> BridgeSpec {
        BridgeSpec { name: name.to_owned(), gateway: Ipv4Addr::from(gateway), prefix }
    }

    #[test]
    fn a_bridge_has_a_plain_name_and_a_host_address() {
        for (name, gateway, prefix) in [
            ("gantry0", [10, 1, 2, 1], 24),
            ("g", [10, 0, 0, 254], 8),
            ("a-very_long-br0", [10, 1, 2, 2], 30),
        ] {
            assert_eq!(bridge(name, gateway, prefix).validate(), Ok(()), "{name}");
        }
        for name in ["", "0br", "..", "a/b", "a b", "a\"", "a-sixteen-char-x", "brü"] {
            assert!(
                matches!(bridge(name, [10, 1, 2, 1], 24).validate(), Err(InvalidBridge::Name(_))),
                "{name:?}"
            );
        }
        for (gateway, prefix) in
            [([10, 1, 2, 0], 24), ([10, 1, 2, 255], 24), ([10, 1, 2, 1], 31), ([10, 1, 2, 1], 0)]
        {
            let outcome = bridge("gantry0", gateway, prefix).validate();
            assert!(matches!(outcome, Err(InvalidBridge::Address { .. })), "{gateway:?}/{prefix}");
        }
    }

    #[test]
    fn a_member_has_a_host_address_of_the_subnet_that_is_not_the_gateway() {
        let bridge = bridge("gantry0", [10, 1, 2, 1], 24);
        assert!(bridge.admits(Ipv4Addr::new(10, 1, 2, 2)));
        for last in [0, 1, 255] {
            assert!(!bridge.admits(Ipv4Addr::new(10, 1, 2, last)), "{last}");
        }
        assert!(!bridge.admits(Ipv4Addr::new(10, 1, 3, 2)));
    }

    #[test]
    fn names_fit_an_interface_and_differ_between_tasks() {
        let name = |slot, sequence| port_name(TaskId { service: ServiceId(1), slot, sequence });
        let longest = port_name(TaskId { service: ServiceId(u64::MAX), slot: u32::MAX, sequence: u64::MAX });
        assert_eq!(longest.len(), NAME_MAX);
        assert_ne!(name(1, 11), name(11, 1));
        assert_eq!(name(1, 1), name(1, 1));
    }

    #[test]
    fn a_hardware_address_is_local_unicast_and_holds_the_address() {
        assert_eq!(mac_of(Ipv4Addr::new(10, 1, 2, 3)), [0x02, 0x67, 10, 1, 2, 3]);
    }
}
