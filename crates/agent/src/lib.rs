//! The worker role: keep assigned tasks running on this node, and report what is seen.
//!
//! Enter at [`Agent`]. In reading order: [`step`] (the pure decision for one task), [`health`] (the pure decision whether its
//! container lives and serves), [`task`] (the loop that carries it out), [`probing`] (asks the container beside that loop),
//! [`staff`] (who keeps the loops), [`fetches`] (images on their way), [`garbage`] (the pure decision which images go),
//! `images` (what this node is to hold of them), [`ledger`] (what survives the agent), [`details`] (what does not, for
//! whoever asks), [`host`] (the effects, real ones in [`real`]), [`report`] (what is said, until it is heard), [`session`]
//! (with whom), [`uplink`] (how managers are reached).
//!
//! **Invariant:** containers do not belong to the agent. Stopping, killing or upgrading it touches none of them, and so
//! does losing every manager: a task is stopped on its own explicit desired state and on nothing else. A container that
//! fails its own health check is ended too, as an attempt of a task that goes on.
//!
//! **Invariant:** an intent is in the ledger before the kernel is touched, and what is on the host is found again by
//! names made from task ids.

mod agent;
pub mod details;
mod excerpt;
mod fetches;
pub mod garbage;
pub mod health;
pub mod host;
mod images;
pub mod ledger;
mod probing;
pub mod real;
mod report;
mod session;
mod staff;
mod step;
mod task;
pub mod uplink;

pub use agent::{Agent, Clock, Config, Heart, Opened};
pub use step::{Container, Effect, Next, Observed, step};
