//! What every manager agrees on, kept: Raft and the disk.
//!
//! Enter at [`Store`]: [`propose`](Store::propose) asks for a change, [`state`](Store::state) and
//! [`linearize`](Store::linearize) read, [`watch`](Store::watch) follows, [`leadership`](Store::leadership) says who
//! leads. A `Store` is a cheap handle; the tasks behind it end with [`shutdown`](Store::shutdown).
//!
//! Modules in reading order:
//!
//! - [`store`](Store): the handle, [`Config`], and how a manager starts from what is on its disk
//! - `members`: who votes; `leadership`: who leads, and whether it may act
//! - [`transport`](Transport): what carries messages between managers, an interface that others implement; `peer` is
//!   openraft's view of it
//! - [`Engine`]: a narrow key-value store, with [`rocks`] and [`memory`] behind it
//! - `log`, `flush`: the Raft log and its one fsync at a time; `machine`, `shelf`: applying, and snapshots
//! - [`feed`](Watch): the published state and its changes
//! - `message`, `convert`, `record`: our own protobuf on the wire and the checksummed records on disk
//!
//! **Invariant:** no type of openraft or RocksDB is seen outside, on the wire, or on disk. There is no wall clock and no
//! randomness from the operating system here: time is tokio's, and chance comes from [`Config::seed`], so that a
//! simulated cluster on a paused runtime replays.
//!
//! `DESIGN.md` beside this crate says what is on disk and why it survives.

mod config;
mod convert;
mod engine;
mod feed;
mod flush;
mod identity;
mod leadership;
mod log;
mod machine;
mod members;
pub mod memory;
mod message;
mod peer;
mod raft;
mod record;
pub mod rocks;
mod shelf;
mod store;
mod transport;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use engine::{Batch, Edit, Engine, EngineError, Pair};
pub use feed::{News, Watch};
pub use leadership::Leadership;
pub use members::MembershipError;
pub use record::Damage;
pub use store::{Failure, FoundError, HandleError, Health, LinearizeError, ProposeError, StartError, Store};
pub use transport::{RaftRequest, Transport, TransportError};
