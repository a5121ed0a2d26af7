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
//! - [`launch`]: what is to be run and with which of Docker's options, and Docker's rule for what the command line is;
//! - [`handle`]: the agent's side: spawn, inspect, watch, pause, stop, bury, destroy;
//! - [`exec`], [`attach`]: another process in a running container, and the container's own input and output;
//! - [`stats`], [`changes`]: what it uses, which processes it has, and what it did to its image's files; [`layer`]: the same as a
//!   layer of an image;
//! - [`shim`]: the shim's life, step by step, with `shim/start.rs` (makes the container), `shim/supervise.rs` (the loop
//!   until its end), `shim/ending.rs` (what is left then), `shim/client.rs` (who may ask what), `shim/stdio.rs` and
//!   `shim/attached.rs` (the container's streams, and who sees them), `shim/minder.rs` and `shim/tenant.rs` (a process that
//!   joins the container, and the one beside it);
//! - `protocol`, `passing`: what the two say to each other, and which descriptors they hand over;
//! - `oci`: the container as the OCI runtime specification has it, a pure function;
//! - `rootfs`, [`skeleton`], `user`, `payload`: what is looked up or put into a file system that its image's author controls;
//! - `stage`, with `stage/source.rs`, and `device`: what of the node's it sees, and in which order nobody can interfere;
//! - `reserved`: what of the node's it neither sees nor reaches;
//! - `confine`, [`capability`], [`seccomp`], `apparmor` and `masked`: what it may ask of the kernel;
//! - `cgroup`, `ulimit` and `quota`: limits, and what is said of those that a node does not have; counting, freezing, killing
//!   and removing;
//! - `init`: the process that reaps, where a container's own first one does not;
//! - `terminal`: pseudo-terminals; `signal`: signals by their numbers;
//! - [`files`]: copies in and out of a running container, which may change under them;
//! - [`logs`]: the log's format, rotation, a reader that can follow, and sending it elsewhere as well;
//! - [`binary`]: why a container cannot overwrite gantry;
//! - [`heap`]: the C library's allocator, in a process with many threads;
//! - [`removal`]: taking away what containers have written, whatever they made of it.
//!
//! It is synchronous, and the shim is single-threaded from its first instruction: libcontainer clones without exec,
//! which a threaded process must not do. It does not know images, networks (a namespace's path is all it gets), restart
//! policies or the cluster.

mod apparmor;
pub mod attach;
pub mod binary;
pub mod capability;
mod cgroup;
pub mod changes;
mod confine;
mod detach;
mod device;
pub mod exec;
pub mod files;
pub mod handle;
pub mod heap;
mod init;
pub mod launch;
pub mod layer;
pub mod logs;
mod masked;
mod mount_attr;
mod oci;
mod passing;
mod payload;
mod protocol;
mod quota;
mod record;
pub mod removal;
mod reserved;
mod rootfs;
pub mod seccomp;
pub mod shim;
mod signal;
pub mod skeleton;
mod stage;
pub mod stats;
mod terminal;
mod ulimit;
mod user;

pub use binary::ShimBinary;
pub use cgroup::CgroupError;
pub use launch::{Launch, Limits, LogPolicy, Options, args_of};
pub use record::LoadError;
