//! One node's container network: a bridge, one interface with one address for each task, published ports.
//!
//! Enter at [`Network`]: `open` prepares the node, `attach` gives a task a network namespace with an interface in it,
//! `publish` replaces the whole table of ports, `adopt` says what an earlier daemon left, `destroy` takes all of it away.
//! Every call states what has to be and may be repeated; `DESIGN.md` beside this crate says how each thing is named,
//! found again and undone.
//!
//! **Invariant:** all of it happens in the network namespace of the calling process. A thread that leaves that
//! namespace to make or configure a container's is never used for anything else.
//!
//! **Invariant:** nothing is remembered here. What exists is read from the kernel, by names and aliases that derive
//! from task ids, so that a daemon that starts again finds what it made.
//!
//! This crate knows no container, no image and no other node: no traffic between nodes, no DNS, no virtual addresses.
//!
//! Reading order: `table` (what is wanted), `script` (the packet filter's rules as text, pure), `ruleset` (who loads
//! them), `rtnl` and `requests` (talking to the kernel), `pins` (namespaces), `plane` (the effects), `network` (the
//! async surface), `error`.

mod error;
mod network;
mod pins;
mod plane;
mod requests;
mod rtnl;
mod ruleset;
mod script;
mod sysctl;
mod table;

pub use error::{AdoptError, AttachError, DestroyError, DetachError, OpenError, PublishError};
pub use network::Network;
pub use pins::PinError;
pub use rtnl::NetlinkError;
pub use ruleset::{Nft, Ruleset, RulesetError};
pub use sysctl::SysctlError;
pub use table::{BridgeSpec, InvalidBridge, Member};
