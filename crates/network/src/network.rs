//! The async surface: each call is blocking work that is moved off the runtime's workers.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::{io, thread};

use model::TaskId;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tracing::debug;

use crate::error::{AdoptError, AttachError, DestroyError, DetachError, OpenError, PublishError};
use crate::plane::Plane;
use crate::ruleset::{Nft, Ruleset};
use crate::script;
use crate::table::{BridgeSpec, Member};

/// A handle of this node's data plane, cheap to clone. Everything acts in the network and mount namespaces of the
/// calling process. Calls for different tasks may overlap; two for the same task must not.
///
/// A call whose future is dropped still runs to its end.
#[derive(Clone, Debug)]
pub struct Network {
    plane: Arc<Plane>,
    /// Whose turn it is to publish. It queues in order, so that the table that was given last is the one that stays.
    turn: Arc<Mutex<()>>,
}

impl Network {
    /// Prepares the node: the bridge with its address, IPv4 forwarding, the packet filter's rules, and `netns_dir` as
    /// the place of the containers' namespaces. What an earlier daemon attached and published stays as it is.
    pub async fn open(bridge: BridgeSpec, netns_dir: PathBuf) -> Result<Self, OpenError> {
        Self::open_with(bridge, netns_dir, Box::new(Nft)).await
    }

    /// [`Network::open`] with another way to load the packet filter's rules.
    pub async fn open_with(
        bridge: BridgeSpec,
        netns_dir: PathBuf,
        ruleset: Box<dyn Ruleset>,
    ) -> Result<Self, OpenError> {
        let plane = blocking(move || Plane::open(bridge, netns_dir, ruleset)).await?;
        Ok(Self { plane: Arc::new(plane), turn: Arc::default() })
    }

    /// Gives a task a network namespace with `lo`, and `eth0` with the member's address and a route through the bridge.
    /// Returns the path by which a runtime joins that namespace. Completes what is missing of an earlier call; a task's
    /// address never changes. Ports are not opened by this but by [`Network::publish`].
    pub async fn attach(&self, task: TaskId, member: &Member) -> Result<PathBuf, AttachError> {
        let (plane, address) = (Arc::clone(&self.plane), member.address);
        let path = blocking(move || on_thread_of_its_own(move || plane.attach(task, address)))
            .await
            .map_err(|source| AttachError::Thread { task, source })??;
        debug!(%task, %address, netns = %path.display(), "attached");
        Ok(path)
    }

    /// Removes the task's interface and lets go of its namespace. Nothing to remove is success.
    pub async fn detach(&self, task: TaskId) -> Result<(), DetachError> {
        let plane = Arc::clone(&self.plane);
        blocking(move || plane.detach(task)).await?;
        debug!(%task, "detached");
        Ok(())
    }

    /// Makes these members' ports, and no others, answer on the node's IPv4 addresses (not on 127.0.0.0/8), and holds
    /// each member to its own address. One transaction, whatever the number of members: callers that have several
    /// changes at once make one call. Members belong in it whether they publish a port or not.
    pub async fn publish(&self, members: &BTreeMap<TaskId, Member>) -> Result<(), PublishError> {
        let script = script::publication(self.plane.bridge(), members).map_err(
            |script::Conflict { port, protocol, first, second }| PublishError::Conflict {
                port,
                protocol: protocol.as_str(),
                first,
                second,
            },
        )?;
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let plane = Arc::clone(&self.plane);
        let apply = move || {
            let outcome = plane.apply(&script);
            drop(turn);
            outcome
        };
        blocking(apply).await.map_err(PublishError::Ruleset)?;
        debug!(members = members.len(), "published");
        Ok(())
    }

    /// The tasks of which anything is on the node now, attached in full or not, whoever attached them.
    pub async fn adopt(&self) -> Result<BTreeSet<TaskId>, AdoptError> {
        let plane = Arc::clone(&self.plane);
        blocking(move || plane.tasks()).await
    }

    /// Removes all that gantry ever made here: interfaces, the bridge, namespaces, `netns_dir`, the packet filter's
    /// tables. Only IPv4 forwarding stays on, since others may have come to rely on it. Nothing to remove is success.
    pub async fn destroy(&self) -> Result<(), DestroyError> {
        let plane = Arc::clone(&self.plane);
        blocking(move || plane.destroy()).await
    }
}

/// Runs `work` on a thread that may block. A panic in it is the caller's.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(value) => value,
        // Not cancelled: nobody aborts it, and a runtime that shuts down also drops the future that waits here.
        Err(failed) => resume_unwind(failed.into_panic()),
    }
}

/// Runs `work` on a new thread and waits for it. The work changes its thread's network namespace, so the thread must
/// never see other work, as the runtime's own blocking threads would.
fn on_thread_of_its_own<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let thread = thread::Builder::new().name("netns".to_owned()).spawn(work)?;
    match thread.join() {
        Ok(value) => Ok(value),
        Err(panic) => resume_unwind(panic),
    }
}
