//! One container: its root file system, its namespaces and limits, the shim that owns it, and its log.
//!
//! The agent prepares a *task directory*, writes a [`Launch`] into it and calls [`handle::spawn`], which execs this very
//! program as a **shim** ([`shim::main`]). The shim makes the container and stays beside it until it ends; from then on
//! the agent may die and come back, and finds out what became of it with [`handle::inspect`]. All that the two ever say
//! to each other is files in that directory and lines on a socket in it.
//!
//! ```text
//! launch.json   the agent's order           upper/ work/   the container's writable layer
//! shim.lock     held while the shim lives   bundle/        in memory, and seen by the shim only: the mounted root, and
//! state.json    the container runs                         what libcontainer is given and keeps
//! exit.json     how it ended                log log.1 …    what it printed
//! shim.sock     requests                    shim.err       a shim's last words
//! ```
//!
//! Where to enter, in reading order:
//!
//! - [`launch`]: what is to be run, and Docker's rule for what the command line is;
//! - [`handle`]: the agent's side: spawn, inspect, watch, pause, stop, bury, destroy;
//! - [`exec`], [`attach`]: another process in a running container, and the container's own input and output;
//! - [`stats`], [`changes`]: what it uses, which processes it has, and what it did to its image's files;
//! - [`shim`]: the shim's life, step by step, with `shim/start.rs` (makes the container), `shim/supervise.rs` (the loop
//!   until its end), `shim/ending.rs` (what is left then), `shim/client.rs` (who may ask what), `shim/stdio.rs` and
//!   `shim/attached.rs` (the container's streams, and who sees them), `shim/minder.rs` and `shim/tenant.rs` (a process that
//!   joins the container, and the one beside it);
//! - `protocol`, `passing`: what the two say to each other, and which descriptors they hand over;
//! - `oci`: the container as the OCI runtime specification has it, a pure function;
//! - `rootfs`, [`skeleton`], `user`, `payload`: what is looked up or put into a file system that its image's author controls;
//! - `confine` and [`seccomp`]: what it may ask of the kernel;
//! - `cgroup`: limits, counting, freezing, killing and removing;
//! - `terminal`: pseudo-terminals;
//! - [`files`]: copies in and out of a running container, which may change under them;
//! - [`logs`]: the log's format, rotation, and a reader that can follow;
//! - [`binary`]: why a container cannot overwrite gantry.
//!
//! It is synchronous, and the shim is single-threaded from its first instruction: libcontainer clones without exec,
//! which a threaded process must not do. It does not know images, networks (a namespace's path is all it gets), restart
//! policies or the cluster.

pub mod attach;
pub mod binary;
mod cgroup;
pub mod changes;
mod confine;
mod detach;
pub mod exec;
pub mod files;
pub mod handle;
pub mod launch;
pub mod logs;
mod oci;
mod passing;
mod payload;
mod protocol;
mod record;
mod rootfs;
pub mod seccomp;
pub mod shim;
pub mod skeleton;
pub mod stats;
mod terminal;
mod user;

pub use binary::ShimBinary;
pub use cgroup::CgroupError;
pub use launch::{Launch, Limits, LogPolicy, args_of};
pub use record::LoadError;
