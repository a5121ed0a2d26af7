//! What the agent does to its machine, and what it finds there: the one seam between decisions and effects.
//!
//! [`crate::real::RealHost`] runs containers. Simulated clusters have a host of their own, whose containers survive the
//! agent as real ones do.

#[cfg(test)]
pub(crate) mod fake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use model::{
    Bytes, Digest, Exit, HealthCheck, Hook, NodeId, Origin, Probe, Registry, RegistryName, Subnet, TaskId,
    Timestamp,
};
use tokio::sync::watch;

use crate::ledger::{Assigned, Record};

/// A failure of an attempt, for the user: what was tried and why it failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// A task's container as it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever started for it, or it has been removed.
    Nothing,
    Running {
        /// How long it has been running.
        ran: Duration,
    },
    Exited {
        exit: Exit,
        ran: Duration,
    },
}

/// An image and the nodes that hold it, by the addresses of their daemons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    pub digest: Digest,
    pub holders: Vec<(NodeId, std::net::SocketAddr)>,
    /// `None` where no registry has it.
    pub pull: Option<Arc<PullFrom>>,
}

/// Where an image can be pulled from, and all that the cluster keeps of who is asked: the registry and its mirrors. It has
/// credentials in it, which stay in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFrom {
    pub origin: Origin,
    pub registries: BTreeMap<RegistryName, Registry>,
}

/// How much of an image's layers is here. Nothing of nothing as long as nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulling {
    pub done: Bytes,
    pub total: Bytes,
}

/// The images of this node, and the room that there is for more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelf {
    pub images: Vec<Shelved>,
    pub free: Bytes,
    pub total: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shelved {
    pub digest: Digest,
    pub size: Bytes,
    /// When it came, or was last used, by this node's clock.
    pub used: Timestamp,
    /// It is being fetched, or read by whoever is not a task.
    pub busy: bool,
    /// All of it is here. What came of one that is not whole takes room, and is of use to nobody but its next fetch.
    pub whole: bool,
}

/// What happened to the images of a node without the agent's having asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stirred {
    /// One has come that the agent did not fetch itself.
    Arrived,
    /// One could not come, since the disk is full.
    Full,
}

/// A task's image, ready to be mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The image's own health check.
    pub health: Option<HealthCheck>,
}

/// What a probe came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    pub healthy: bool,
    /// What was answered, or why there was no answer: at most 4 KiB, which is what Docker keeps.
    pub output: String,
    /// It did not answer as it stood still. Nobody can tell whether it lives; that it takes no work is plain.
    pub paused: bool,
}

/// The machine. Every effect can be repeated after it was cut short, and finds what the cut one left.
pub trait Host: Send + Sync + 'static {
    /// The records that the last agent left. What there is of a task without one goes: nobody would ever ask for it.
    fn records(&self) -> BoxFuture<'_, Result<Vec<Record>, Failure>>;
    /// A task's record as it was last written; `None` if it never was.
    fn record(&self, task: TaskId) -> Result<Option<Record>, Failure>;
    /// Writes a record, replacing the task's last one.
    fn save(&self, record: &Record) -> Result<(), Failure>;
    /// Drops a task's record. What is left of the task on the host goes first.
    fn forget(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>>;

    /// The node's part of the cluster's address range; told before the first task, and again on every session.
    fn join_network(&self, subnet: Subnet) -> BoxFuture<'_, Result<(), Failure>>;

    /// What became of one attempt.
    fn find(&self, task: TaskId, attempt: u32) -> BoxFuture<'_, Found>;
    /// Brings the task's image here, ready to be mounted. It may take long and touches no container: dropped at any point,
    /// it leaves nothing but content that the next call finds. `pulling` hears how far it is.
    fn prepare(
        &self,
        task: Arc<Assigned>,
        pulling: watch::Sender<Pulling>,
    ) -> BoxFuture<'_, Result<Prepared, Failure>>;
    /// Starts a container from what was prepared. Returns once its process runs, with what was asked for and this node does
    /// not do. Not to be dropped while the agent lives: threads would go on making things that nobody waits for.
    fn start(&self, task: Arc<Assigned>, attempt: u32) -> BoxFuture<'_, Result<Vec<String>, Failure>>;
    /// Holds a container that runs to the limits that are assigned now. Returns what this node does not do.
    fn relimit(&self, task: Arc<Assigned>, attempt: u32) -> BoxFuture<'_, Result<Vec<String>, Failure>>;
    /// Asks a container that runs how it is. What takes longer than `timeout` has failed. Dropped, it is given up, and nothing
    /// of it goes on.
    fn probe(
        &self,
        task: Arc<Assigned>,
        attempt: u32,
        probe: Probe,
        timeout: Duration,
    ) -> BoxFuture<'_, ProbeResult>;
    /// Runs a command in a container that runs, to its end. What takes longer than `timeout` has failed. Dropped, it is given up,
    /// and nothing of it goes on.
    fn hook(
        &self,
        task: Arc<Assigned>,
        attempt: u32,
        hook: Hook,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<(), Failure>>;
    /// Waits until the container has ended. Finds it even if it was started by an agent before this one.
    fn ended(&self, task: TaskId) -> BoxFuture<'_, ()>;
    /// What an ended container printed last, on one line, if it printed anything.
    fn last_words(&self, task: TaskId, attempt: u32) -> BoxFuture<'_, Option<String>>;
    /// Asks the container to end, insists after `grace`, and returns once it has.
    fn stop(&self, task: TaskId, grace: Duration) -> BoxFuture<'_, Result<(), Failure>>;
    /// Gives back what an ended container holds (address, ports, mounts, cgroup); its logs and its exit stay.
    fn release(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>>;
    /// Leaves nothing of the task but its record.
    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), Failure>>;

    fn images(&self) -> BoxFuture<'_, Vec<Digest>>;
    /// Copies an image from whoever has it, unless it is here.
    fn fetch(&self, source: ImageSource) -> BoxFuture<'_, Result<(), Failure>>;
    fn discard(&self, image: Digest) -> BoxFuture<'_, Result<(), Failure>>;
    fn shelf(&self) -> BoxFuture<'_, Result<Shelf, Failure>>;
    /// Notes that these are used now.
    fn touch(&self, images: Vec<Digest>) -> BoxFuture<'_, ()>;
    /// Returns when something has happened to the images. A call that is dropped loses nothing.
    fn stirred(&self) -> BoxFuture<'_, Stirred>;
}
