//! The effects: what the kernel is told, in which order. Blocking.
//!
//! The order is what makes a kill at any point harmless. A namespace is pinned before an interface refers to it, and an
//! interface bears its task's name from the system call that makes it; so whatever is half done is found by
//! [`Plane::tasks`], completed by [`Plane::attach`] or removed by [`Plane::detach`].

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use model::TaskId;

use crate::error::{AdoptError, AttachError, DestroyError, DetachError, OpenError};
use crate::pins::{Entered, Pins};
use crate::requests;
use crate::rtnl::{Link, NetlinkError, Rtnl};
use crate::ruleset::{Ruleset, RulesetError};
use crate::table::{BridgeSpec, port_name};
use crate::{script, sysctl};

#[derive(Debug)]
pub(crate) struct Plane {
    bridge: BridgeSpec,
    pins: Pins,
    ruleset: Box<dyn Ruleset>,
}

impl Plane {
    pub(crate) fn open(
        bridge: BridgeSpec,
        netns_dir: PathBuf,
        ruleset: Box<dyn Ruleset>,
    ) -> Result<Self, OpenError> {
        bridge.validate().map_err(OpenError::Invalid)?;
        let index = ensure_bridge(&bridge)?;
        sysctl::disable_ipv6(&bridge.name).map_err(OpenError::Sysctl)?;
        sysctl::forward_ipv4().map_err(OpenError::Sysctl)?;
        ensure_gateway(&bridge, index)
            .map_err(|source| OpenError::Bridge { bridge: bridge.name.clone(), source })?;
        let pins = Pins::prepare(netns_dir).map_err(OpenError::Pins)?;
        ruleset.apply(&script::rules(&bridge)).map_err(OpenError::Ruleset)?;
        Ok(Self { bridge, pins, ruleset })
    }

    pub(crate) fn bridge(&self) -> &BridgeSpec {
        &self.bridge
    }

    pub(crate) fn apply(&self, script: &str) -> Result<(), RulesetError> {
        self.ruleset.apply(script)
    }

    /// Leaves the calling thread in the task's namespace, or in a namespace of nobody's: the thread must end.
    pub(crate) fn attach(&self, task: TaskId, address: Ipv4Addr) -> Result<PathBuf, AttachError> {
        if !self.bridge.admits(address) {
            return Err(AttachError::Address { task, address, subnet: self.bridge.subnet() });
        }
        let failed = |source| AttachError::Netlink { task, source };
        // Opened while this thread is still in the node's namespace, to which the socket then belongs.
        let mut host = Rtnl::open().map_err(failed)?;
        let bridge = host.link(&self.bridge.name).map_err(failed)?;
        let Some(bridge) = bridge else {
            return Err(AttachError::NoBridge { task, bridge: self.bridge.name.clone() });
        };
        let entered = self.pins.enter(task).map_err(|source| AttachError::Namespace { task, source })?;
        // The default, before there is an interface to inherit it. `lo` is older and keeps its ::1.
        sysctl::disable_ipv6("default").map_err(|source| AttachError::Sysctl { task, source })?;
        connect(&mut host, task, address, bridge.index, &entered)?;

        let mut inside = Rtnl::open().map_err(failed)?;
        let inner = inside.link(requests::INSIDE).map_err(failed)?;
        let inner = inner.ok_or(AttachError::NoInnerEnd { task })?;
        inside.run(requests::configure_inside(inner.index, address, &self.bridge)).map_err(failed)?;
        Ok(self.pins.path(task))
    }

    pub(crate) fn detach(&self, task: TaskId) -> Result<(), DetachError> {
        disconnect(task).map_err(|source| DetachError::Netlink { task, source })?;
        self.pins.remove(task).map_err(|source| DetachError::Namespace { task, source })
    }

    /// Every task of which something is on the node.
    pub(crate) fn tasks(&self) -> Result<BTreeSet<TaskId>, AdoptError> {
        let mut tasks = self.pins.tasks().map_err(AdoptError::Pins)?;
        let (_, ports) = self.interfaces().map_err(AdoptError::Netlink)?;
        tasks.extend(ports.iter().filter_map(owner));
        Ok(tasks)
    }

    pub(crate) fn destroy(&self) -> Result<(), DestroyError> {
        let (bridge, ports) = self.interfaces().map_err(DestroyError::Netlink)?;
        // The bridge last: it is how the ports are found.
        let ours = ports.iter().filter(|port| owner(port).is_some()).chain(&bridge);
        let deletions = ours.map(|link| requests::delete_link(link.index, &link.name)).collect();
        Rtnl::open().and_then(|mut host| host.run(deletions)).map_err(DestroyError::Netlink)?;
        for task in self.pins.tasks().map_err(DestroyError::Pins)? {
            self.pins.remove(task).map_err(DestroyError::Pins)?;
        }
        self.pins.close().map_err(DestroyError::Pins)?;
        self.ruleset.apply(script::REMOVAL).map_err(DestroyError::Ruleset)
    }

    /// gantry's bridge, if it is there, and its ports.
    fn interfaces(&self) -> Result<(Option<Link>, Vec<Link>), NetlinkError> {
        let mut host = Rtnl::open()?;
        match host.link(&self.bridge.name)?.filter(is_ours) {
            Some(bridge) => {
                let ports = host.ports_of(bridge.index)?;
                Ok((Some(bridge), ports))
            }
            None => Ok((None, Vec::new())),
        }
    }
}

fn is_ours(bridge: &Link) -> bool {
    bridge.is_bridge && bridge.alias.as_deref() == Some(requests::OWNER)
}

/// The task that a bridge port belongs to. Name and alias have to agree, or it is someone else's.
fn owner(port: &Link) -> Option<TaskId> {
    let task: TaskId = port.alias.as_deref()?.parse().ok()?;
    (port_name(task) == port.name).then_some(task)
}

/// The alias of an interface that has the name of the task's and is another's. One without an alias is the task's: the
/// kernel made it and refused to mark it.
fn not_of(port: &Link, task: TaskId) -> Option<String> {
    port.alias.clone().filter(|alias| *alias != task.to_string())
}

/// Makes the bridge if it is not there, and returns its index.
fn ensure_bridge(bridge: &BridgeSpec) -> Result<u32, OpenError> {
    let failed = |source| OpenError::Bridge { bridge: bridge.name.clone(), source };
    let mut host = Rtnl::open().map_err(failed)?;
    if let Some(there) = host.link(&bridge.name).map_err(failed)? {
        return if is_ours(&there) { Ok(there.index) } else { Err(OpenError::Foreign(bridge.name.clone())) };
    }
    host.run(requests::create_bridge(bridge)).map_err(failed)?;
    let made = host.link(&bridge.name).map_err(failed)?;
    made.map(|made| made.index).ok_or_else(|| OpenError::Vanished(bridge.name.clone()))
}

/// Gives the bridge its address and takes away any other, which it has from a node's earlier life in another subnet.
fn ensure_gateway(bridge: &BridgeSpec, index: u32) -> Result<(), NetlinkError> {
    let mut host = Rtnl::open()?;
    host.run(requests::address(index, bridge.gateway, bridge.prefix))?;
    let stale = host.addresses_of(index)?.into_iter().filter(|there| !requests::is_address(there, bridge));
    let removals = stale.map(requests::remove_address).collect();
    host.run(removals)
}

/// Makes sure that a veth pair joins the bridge and the namespace that was entered.
fn connect(
    host: &mut Rtnl,
    task: TaskId,
    address: Ipv4Addr,
    bridge: u32,
    entered: &Entered,
) -> Result<(), AttachError> {
    let failed = |source| AttachError::Netlink { task, source };
    let interface = port_name(task);
    if let Some(there) = host.link(&interface).map_err(failed)? {
        if let Some(owner) = not_of(&there, task) {
            return Err(AttachError::Taken { task, interface, owner });
        }
        if there.alias.is_some() && !entered.is_new {
            return Ok(());
        }
        // It was never marked, or its other end is in a namespace that lost its pin.
        host.run(vec![requests::delete_link(there.index, &interface)]).map_err(failed)?;
    }
    host.run(requests::create_pair(task, address, bridge, entered.netns.as_fd())).map_err(failed)
}

/// Deletes the task's interface, both ends. One of that name that is not the task's is not touched.
fn disconnect(task: TaskId) -> Result<(), NetlinkError> {
    let mut host = Rtnl::open()?;
    match host.link(&port_name(task))?.filter(|port| not_of(port, task).is_none()) {
        Some(port) => host.run(vec![requests::delete_link(port.index, &port.name)]),
        None => Ok(()),
    }
}
