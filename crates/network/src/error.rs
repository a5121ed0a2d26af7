//! What can go wrong, one enum for each thing that [`crate::Network`] does.

use std::net::Ipv4Addr;

use model::TaskId;

use crate::pins::PinError;
use crate::rtnl::NetlinkError;
use crate::ruleset::RulesetError;
use crate::sysctl::SysctlError;
use crate::table::InvalidBridge;

/// The node's network could not be prepared. Preparing it again later is safe.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the bridge cannot be made")]
    Invalid(#[source] InvalidBridge),
    #[error("an interface `{0}` exists and is not gantry's: rename it, or give gantry's bridge another name")]
    Foreign(String),
    #[error("bridge `{0}` was removed while it was being set up: is something else configuring this node?")]
    Vanished(String),
    #[error("bridge {bridge} cannot be set up")]
    Bridge { bridge: String, source: NetlinkError },
    #[error("the containers' namespaces have no place")]
    Pins(#[source] PinError),
    #[error("the kernel's network settings cannot be changed")]
    Sysctl(#[source] SysctlError),
    #[error("the packet filter cannot be set up")]
    Ruleset(#[source] RulesetError),
}

/// A task has no working interface. What was made of it stays; attaching again completes it, detaching removes it.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("task {task} cannot have the address {address}: it is not a container's on {subnet}")]
    Address { task: TaskId, address: Ipv4Addr, subnet: model::Subnet },
    #[error("task {task} cannot be connected: bridge {bridge} is gone")]
    NoBridge { task: TaskId, bridge: String },
    #[error(
        "task {task} cannot be connected: interface {interface} is there already and belongs to `{owner}`"
    )]
    Taken { task: TaskId, interface: String, owner: String },
    #[error("task {task} has a connection whose inner end is gone: detach it and attach it again")]
    NoInnerEnd { task: TaskId },
    #[error("task {task} has no network namespace")]
    Namespace { task: TaskId, source: PinError },
    #[error("the network namespace of task {task} cannot be configured")]
    Sysctl { task: TaskId, source: SysctlError },
    #[error("task {task} cannot be connected")]
    Netlink { task: TaskId, source: NetlinkError },
    #[error("task {task} cannot be connected: there is no thread to do it")]
    Thread { task: TaskId, source: std::io::Error },
}

/// Something of a task's network is left. Detaching again takes up where this failed.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    #[error("the interface of task {task} cannot be removed")]
    Netlink { task: TaskId, source: NetlinkError },
    #[error("the network namespace of task {task} cannot be let go")]
    Namespace { task: TaskId, source: PinError },
}

/// What was published before is still published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("port {port}/{protocol} of the node is wanted by both {first} and {second}")]
    Conflict { port: u16, protocol: &'static str, first: TaskId, second: TaskId },
    #[error("the node's published ports cannot be changed")]
    Ruleset(#[source] RulesetError),
}

/// What is on the node could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("the tasks' interfaces cannot be listed")]
    Netlink(#[source] NetlinkError),
    #[error("the tasks' network namespaces cannot be listed")]
    Pins(#[source] PinError),
}

/// Something of gantry's is left on the node. Destroying again takes up where this failed.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    #[error("gantry's interfaces cannot be removed")]
    Netlink(#[source] NetlinkError),
    #[error("the tasks' network namespaces cannot be let go")]
    Pins(#[source] PinError),
    #[error("the packet filter's rules cannot be removed")]
    Ruleset(#[source] RulesetError),
}
