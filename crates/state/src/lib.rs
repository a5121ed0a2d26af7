//! The replicated state machine.
//!
//! Every manager holds one [`State`] and feeds it the same [`Proposal`]s in the same order through [`State::apply`], so
//! all of them hold equal tables. Enter at [`command`] for what can be asked, [`apply`] for what each does, and
//! [`invariants`] for what is true after every one of them.
//!
//! A `State` is persistent: cloning it is free, and planners, the snapshot builder, the dry run and readers each hold a
//! clone that no later `apply` disturbs.
//!
//! **Invariant:** nothing here reads a clock, draws a number, or iterates in hash order. The proposer puts time and ids
//! into the command.

mod apply;
pub mod command;
mod fit;
pub mod invariants;
mod occupancy;
mod retention;
mod slots;
mod tables;

pub use apply::{Applied, Change};
pub use command::{Advance, Command, Declared, Done, Outcome, Proposal, RegistryChange, Rejected, Steer};
pub use fit::{Demand, Explanation, Shunned, Unfit};
pub use occupancy::{Load, Occupancy};
pub use slots::Wanted;
pub use tables::{COPIES, Cluster, NodeRow, REGISTRIES, Recorded, Row, Service, Stack, State, Tag, Token};
