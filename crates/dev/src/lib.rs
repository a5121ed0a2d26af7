//! `gantry dev`: a cluster of real nodes on this machine, and what can befall it.
//!
//! A node is a process that holds a network and a mount namespace (its *holder*), a link to the cluster's switch, a
//! cgroup that has everything of it, a folder that is its disk, and the same daemon that runs on a machine of its own.
//!
//! - [`run`] does what the user typed ([`Command`]). It is what `main` calls for `gantry dev …`.
//! - [`holder_main`] is the life of a holder. `main` calls it for `gantry dev-holder …`, before anything else.
//! - [`world`] is the cluster without daemons: switch, holders, links, and their end.
//!
//! **Invariant:** nothing exists that cannot be found by the cluster's name. Interfaces, cgroups, folders and rules
//! have names that derive from it, and every process is in one of its cgroups. So `down` needs no record to be
//! complete.
//!
//! **Invariant:** a process is signalled by number *and* start time, never by its number alone.
//!
//! **Invariant:** no thread of the command leaves the machine's namespaces, except one that is started for it and
//! ends.
//!
//! This crate does not know what a daemon does, and nothing of containers but the cgroup that they are below.
//!
//! Reading order: `layout` (names), `addresses`, `record` (what is known of a cluster), `process`, `cgroup`,
//! `holder`, `links`, `world` (all of these together), `daemon`, `client`, `join`, `label`, then the verbs `up`,
//! `down`, `faults`, `status`; and the edge: `lock`, `preflight`, `command`, `failure`, `output`. `DESIGN.md` has
//! what is not in one place.

mod addresses;
mod cgroup;
mod client;
mod command;
mod daemon;
mod down;
mod failure;
mod faults;
mod holder;
mod join;
mod label;
mod layout;
mod links;
mod lock;
mod output;
mod preflight;
mod process;
mod record;
mod status;
mod up;
pub mod world;

pub use cgroup::CgroupError;
pub use command::{Add, Command, Down, Node, Status, Target, Up, Which, run};
pub use holder::{HOLDER_ARGUMENT, HolderError, holder_main};
pub use layout::{InvalidNode, Layout, NodeNumber, ROOT_VARIABLE};
pub use links::LinkError;
pub use record::{Record, RecordError};
