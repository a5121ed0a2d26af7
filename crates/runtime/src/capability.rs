//! What a container's root may do beyond any other user: Docker's rules.

use std::collections::BTreeSet;

use caps::CapSet;
use model::Capability;

use crate::launch::Privileges;

/// Docker's default capabilities less NET_RAW: with it, a container could forge packets of its neighbours. `ping` works
/// without, through `ping_group_range`.
const DEFAULT: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What of the capabilities that were asked for a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    pub capabilities: BTreeSet<Capability>,
    /// Asked for by name, and not this node's to give.
    pub missing: BTreeSet<Capability>,
}

/// What a container gets of what this very process has. An agent and its shims have the same.
pub fn granted(privileges: &Privileges) -> Granted {
    select(privileges, &of_this_process())
}

/// Docker's `caps.TweakCapabilities`: a privileged container has all, whatever else is said; `ALL` is added before anything is
/// dropped, and dropped before anything is added.
fn select(privileges: &Privileges, node: &BTreeSet<Capability>) -> Granted {
    let Privileges { privileged, add, drop, .. } = privileges;
    let asked: BTreeSet<Capability> = if *privileged {
        node.clone()
    } else if add.all {
        node.difference(&drop.named).copied().collect()
    } else if drop.all {
        add.named.clone()
    } else {
        let default = Capability::all().filter(|capability| DEFAULT.contains(&capability.as_str()));
        default.filter(|capability| !drop.named.contains(capability)).chain(add.named.clone()).collect()
    };
    Granted {
        capabilities: asked.intersection(node).copied().collect(),
        missing: add.named.intersection(&asked).filter(|named| !node.contains(named)).copied().collect(),
    }
}

/// Nothing, if the kernel does not say: a container has less then, never more.
fn of_this_process() -> BTreeSet<Capability> {
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    Capability::all()
        .filter(|capability| known(*capability).is_some_and(|c| permitted.contains(&c)))
        .collect()
}

/// The same capability to the crate that speaks to the kernel; `None` if it has not heard of it.
pub(crate) fn known(capability: Capability) -> Option<caps::Capability> {
    capability.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Capabilities;

    fn named(names: &str) -> BTreeSet<Capability> {
        names.split_whitespace().map(|name| name.parse().unwrap()).collect()
    }

    fn capabilities(names: &str) -> Capabilities {
        match names.split_once("ALL") {
            Some((_, rest)) => Capabilities { all: true, named: named(rest) },
            None => Capabilities { all: false, named: named(names) },
        }
    }

    /// On a node that has all but SYS_RESOURCE.
    fn check(privileged: bool, add: &str, drop: &str) -> (usize, Granted) {
        let node = Capability::all().filter(|c| c.as_str() != "CAP_SYS_RESOURCE").collect();
        let privileges = Privileges {
            privileged,
            add: capabilities(add),
            drop: capabilities(drop),
            ..Privileges::default()
        };
        let granted = select(&privileges, &node);
        (granted.capabilities.len(), granted)
    }

    #[test]
    fn capabilities_are_dropped_and_added_in_dockers_order() {
        let has = |granted: &Granted, name: &str| granted.capabilities.is_superset(&named(name));
        assert_eq!(check(false, "", "").0, DEFAULT.len());
        let (count, changed) = check(false, "NET_ADMIN CHOWN", "CHOWN MKNOD");
        assert_eq!(count, DEFAULT.len(), "CHOWN was dropped and added again");
        assert!(has(&changed, "CHOWN NET_ADMIN") && !has(&changed, "MKNOD"));
        assert_eq!(check(false, "", "ALL").0, 0);
        assert_eq!(check(false, "NET_RAW", "ALL").1.capabilities, named("NET_RAW"));
        let (count, all_but_one) = check(false, "ALL", "SYS_ADMIN");
        assert!(count == 39 && !has(&all_but_one, "SYS_ADMIN"));
        assert_eq!(check(true, "", "ALL").0, 40, "a privileged container has all that the node has");
    }

    #[test]
    fn what_the_node_does_not_have_is_named_only_if_it_was() {
        assert_eq!(check(false, "SYS_RESOURCE", "").1.missing, named("SYS_RESOURCE"));
        assert_eq!(check(false, "ALL", "").1.missing, BTreeSet::new());
        assert_eq!(check(true, "", "").1.missing, BTreeSet::new());
    }

    #[test]
    fn every_capability_of_the_model_is_known_to_the_kernels_crate() {
        for capability in Capability::all() {
            assert!(known(capability).is_some(), "{}", capability.as_str());
        }
    }
}
