//! This node's data plane, and who is on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::{Subnet, TaskId};
use network::{BridgeSpec, Member, Network};
use tokio::sync::OnceCell;

use crate::host::Failure;
use crate::ledger::Assigned;
use crate::real::failure;

#[derive(Debug)]
pub(crate) struct Plane {
    bridge: String,
    netns: PathBuf,
    network: OnceCell<Network>,
    // A std mutex: it is held for map operations and never across an await.
    members: Mutex<Members>,
    /// The version of the members that was published last. Whoever holds it publishes for all that came before.
    published: tokio::sync::Mutex<u64>,
}

#[derive(Debug)]
struct Members {
    version: u64,
    by_task: BTreeMap<TaskId, Member>,
}

impl Plane {
    pub(crate) fn new(bridge: String, netns: PathBuf) -> Self {
        Self {
            bridge,
            netns,
            network: OnceCell::new(),
            // Ahead of what is published, so that the first call puts this agent's table in place of the last one's.
            members: Mutex::new(Members { version: 1, by_task: BTreeMap::new() }),
            published: tokio::sync::Mutex::new(0),
        }
    }

    /// Counts a task in that an agent before this one attached.
    pub(crate) fn adopt(&self, assigned: &Assigned) {
        let mut members = self.members();
        members.by_task.insert(assigned.id, member(assigned));
        // The agent before this one may have died before it published.
        members.version += 1;
    }

    /// Makes the bridge, once. A node keeps its subnet for life.
    pub(crate) async fn join(&self, subnet: Subnet) -> Result<(), Failure> {
        self.network
            .get_or_try_init(|| async {
                let bridge = BridgeSpec {
                    name: self.bridge.clone(),
                    gateway: subnet.gateway(),
                    prefix: subnet.prefix,
                };
                let network = Network::open(bridge, self.netns.clone()).await;
                network.map_err(|error| failure("cannot set up the node's network", &error))
            })
            .await?;
        Ok(())
    }

    /// Takes from the network what is there of other tasks than these: an agent that was killed between making and
    /// recording, or between removing and forgetting, left it. What cannot be taken away is left to the next agent.
    pub(crate) async fn sweep(&self, known: &BTreeSet<TaskId>) {
        let Ok(network) = self.network() else { return };
        let there = match network.adopt().await {
            Ok(there) => there,
            Err(error) => {
                let failure = failure("cannot look for what nobody has a record of", &error);
                return tracing::warn!(%failure, "the network is not swept");
            }
        };
        for task in there.difference(known) {
            match network.detach(*task).await {
                Ok(()) => tracing::info!(%task, "swept from the network: there is no record of it"),
                Err(error) => {
                    let failure = failure("cannot detach it", &error);
                    tracing::warn!(%task, %failure, "something without a record stays on the network");
                }
            }
        }
    }

    fn network(&self) -> Result<&Network, Failure> {
        self.network.get().ok_or_else(|| Failure("the node has no subnet yet".to_owned()))
    }

    /// Gives a task its namespace, and returns its path.
    pub(crate) async fn attach(&self, assigned: &Assigned) -> Result<PathBuf, Failure> {
        let member = member(assigned);
        let attached = self.network()?.attach(assigned.id, &member).await;
        let path = attached.map_err(|error| failure("cannot attach the container to the network", &error))?;
        let mut members = self.members();
        if members.by_task.get(&assigned.id) != Some(&member) {
            members.by_task.insert(assigned.id, member);
            members.version += 1;
        }
        Ok(path)
    }

    pub(crate) async fn detach(&self, task: TaskId) -> Result<(), Failure> {
        {
            let mut members = self.members();
            let removed = members.by_task.remove(&task).is_some();
            members.version += u64::from(removed);
        }
        let Ok(network) = self.network() else { return Ok(()) };
        // Also when it was no member any more: an earlier call may have failed here. It returns at once if not.
        self.publish().await?;
        network
            .detach(task)
            .await
            .map_err(|error| failure("cannot detach the container from the network", &error))
    }

    /// Returns once the ports of all present members answer, and those of no others. Many callers at once share one
    /// change of the table.
    pub(crate) async fn publish(&self) -> Result<(), Failure> {
        let wanted = self.members().version;
        let mut published = self.published.lock().await;
        if *published >= wanted {
            return Ok(());
        }
        let (version, members) = {
            let members = self.members();
            (members.version, members.by_task.clone())
        };
        let done = self.network()?.publish(&members).await;
        done.map_err(|error| failure("cannot publish the container's ports", &error))?;
        *published = version;
        Ok(())
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn member(assigned: &Assigned) -> Member {
    Member { address: assigned.placement.address, ports: assigned.placement.ports.clone() }
}
