//! The manager role: the API that users call, the leader's loops, and the dispatcher that agents talk to.
//!
//! Enter at [`Control`]. Its parts in reading order: `reconcile` (the only loop that runs planners), [`dispatch`]
//! (assignments out, reports in, who is alive), [`api`] (what users ask), [`forward`] (calls that reach a manager which does
//! not lead), `actor` (who asks), `registries` (who asks them), [`peers`] (Raft between managers), `voters` (which of them vote).
//!
//! **Invariant:** nothing that matters lives only here. A new leader comes to the same decisions from `State` alone;
//! liveness deadlines are the one exception, and it starts those afresh.
//!
//! **Invariant:** this crate never imports `agent`. They meet in `proto/agent.proto`.

mod actor;
pub mod api;
pub mod clock;
pub mod dispatch;
pub mod forward;
mod leader;
mod members;
pub mod peers;
mod reconcile;
mod registries;
mod streams;
mod voters;

#[cfg(test)]
mod alone;
#[expect(dead_code, reason = "some of it is for the other tests")]
#[cfg(test)]
#[path = "../../controllers/tests/fixture/mod.rs"]
mod fixture;

pub use clock::WallClock;
pub use leader::{Control, Parts};
pub use members::Members;
