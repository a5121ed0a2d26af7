//! Simulated clusters: the real `control`, `store` and `agent` in one thread, under virtual time and seeded
//! faults.
//!
//! Enter at [`run`] for one seed, or [`simulate()`] for many. What is real: every loop of the manager and of
//! the agent, Raft, the ledger's encoding, the API's code behind its methods. What is simulated: disks, the
//! network, clocks, and the machines with their containers.
//!
//! Modules in reading order:
//!
//! - `simulation`: a run: a cluster is founded, disturbed, left in peace, and has to converge
//! - `cluster`: machines, and the daemons on them that are killed and started; `disk`: what they keep
//! - `net`: everything that is carried between machines, with delays, losses, partitions
//! - `world`: the machines' containers, images and ledgers, which live longer than any agent
//! - `client`: users, and what they may rely on after an answer; `faults`: what goes wrong, and when
//! - `check`: what is true at all times; `quiet`: what is true once the faults are over
//! - `dice`, `trace`: chance, and the record of what happened
//!
//! **Invariant:** a run is a function of its seed. All chance comes from `dice`, all time from the paused
//! clock, and there is one thread; equal seeds give equal traces, in one process and across processes.
//!
//! Not simulated: a paused process whose timers stand still. Tokio has no way to freeze some tasks of a
//! runtime, so `pause` is a manager or an agent that hears nothing, is not heard, and whose host does
//! nothing, while its timers go on.
//!
//! `tests/` also holds the rules of the repository: who may import whom, and what sources may not contain.

mod check;
mod client;
mod cluster;
mod dice;
mod disk;
mod faults;
mod net;
mod quiet;
mod simulate;
mod simulation;
mod trace;
mod world;

pub use simulate::{Summary, simulate};
pub use simulation::{Options, Report, run};
