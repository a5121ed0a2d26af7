//! Who votes. One change at a time, each safe by itself: openraft goes through joint consensus.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use model::NodeId;
use openraft::async_runtime::{Instant, WatchReceiver};
use openraft::errors::{ChangeMembershipError, ClientWriteError, Fatal, RaftError};
use openraft::metrics::WaitError;
use openraft::{ChangeMembers, EmptyNode};

use crate::raft::{LeaderId, Metrics, TypeConfig};
use crate::store::Store;

/// Why the voters are not as asked. `TimedOut` and `Stopped` leave it open whether they will be; asking again is safe.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("this manager does not lead")]
    NotLeader { leader: Option<NodeId> },
    #[error("another change of the managers is in progress")]
    InProgress,
    #[error("{node} is the only manager left")]
    LastVoter { node: NodeId },
    #[error(
        "without {node} only {reachable} of the {voters} managers left can be reached, which is no majority"
    )]
    NoQuorum { node: NodeId, voters: usize, reachable: usize },
    #[error("{node} was not done within {after:?}")]
    TimedOut { node: NodeId, after: Duration },
    #[error("the managers cannot be changed like this: {0}")]
    Refused(String),
    #[error("the store has stopped")]
    Stopped,
}

type Change = ChangeMembers<u64, EmptyNode>;
type WriteError = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

impl From<WriteError> for MembershipError {
    fn from(error: WriteError) -> Self {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                Self::NotLeader { leader: forward.leader_id.map(NodeId) }
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => Self::NotLeader { leader: None },
            RaftError::APIError(ClientWriteError::ChangeMembershipError(refused)) => Self::from(refused),
            RaftError::APIError(ClientWriteError::PreconditionFailed(failed)) => {
                Self::Refused(failed.to_string())
            }
            RaftError::Fatal(Fatal::StorageError(_) | Fatal::Panicked | Fatal::Stopped) => Self::Stopped,
        }
    }
}

impl From<ChangeMembershipError<LeaderId, u64>> for MembershipError {
    fn from(error: ChangeMembershipError<LeaderId, u64>) -> Self {
        match error {
            ChangeMembershipError::InProgress(_) => Self::InProgress,
            ChangeMembershipError::EmptyMembership(_)
            | ChangeMembershipError::LearnerNotFound(_)
            | ChangeMembershipError::UnsupportedMembershipTransition(_)
            | ChangeMembershipError::UncommittedLeaderLog(_)
            | ChangeMembershipError::NodeMetadataChanged(_) => Self::Refused(error.to_string()),
        }
    }
}

impl Store {
    /// Those who vote now, as far as this manager knows.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft().metrics();
        let now = metrics.borrow_watched();
        now.membership_config.voter_ids().map(NodeId).collect()
    }

    /// Makes `node` a manager: first it only listens, and when it has all that was in the log when it was added, it
    /// votes. Asked of the leader; does nothing if it votes already.
    ///
    /// The id must never have belonged to a node whose disk is gone: the cluster could split.
    pub async fn add_voter(&self, node: NodeId) -> Result<(), MembershipError> {
        if self.voters().contains(&node) {
            return Ok(());
        }
        self.in_time(node, async {
            let added = self.raft().add_learner(node.0, EmptyNode {}, true).await?;
            self.caught_up(node, added.log_id.index).await?;
            let voter = Change::AddVoterIds(BTreeSet::from([node.0]));
            self.raft().change_membership(voter, true).await?;
            Ok(())
        })
        .await
    }

    /// Makes `node` no longer a manager, be it a voter or one that still listens. Asked of the leader, which may remove
    /// itself. Refused where those who remain could not decide anything.
    pub async fn remove_voter(&self, node: NodeId) -> Result<(), MembershipError> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        if metrics.membership_config.get_node(&node.0).is_none() {
            return Ok(());
        }
        let gone = BTreeSet::from([node.0]);
        let change = if self.voters().contains(&node) {
            may_go(&metrics, node, self.config().lease())?;
            Change::RemoveVoters(gone)
        } else {
            Change::RemoveNodes(gone)
        };
        self.in_time(node, async {
            self.raft().change_membership(change, false).await?;
            Ok(())
        })
        .await
    }

    async fn in_time(
        &self,
        node: NodeId,
        change: impl Future<Output = Result<(), MembershipError>>,
    ) -> Result<(), MembershipError> {
        let after = self.config().membership_timeout;
        tokio::time::timeout(after, change).await.unwrap_or(Err(MembershipError::TimedOut { node, after }))
    }

    /// openraft calls a learner up to date when it is a snapshot's distance behind. A voter that lags that far would
    /// make every commit wait for it as soon as another one fails.
    async fn caught_up(&self, node: NodeId, index: u64) -> Result<(), MembershipError> {
        let has_it = |metrics: &Metrics| match &metrics.replication {
            None => true,
            Some(matched) => matched.get(&node.0).is_some_and(|at| at.is_some_and(|at| at.index >= index)),
        };
        let metrics = match self.raft().wait(None).metrics(has_it, "a new manager has caught up").await {
            Ok(metrics) => metrics,
            Err(WaitError::ShuttingDown | WaitError::Timeout(..)) => return Err(MembershipError::Stopped),
        };
        match metrics.replication {
            Some(_) => Ok(()),
            None => Err(MembershipError::NotLeader { leader: metrics.current_leader.map(NodeId) }),
        }
    }
}

/// Whether those who would remain are enough, and are there. Judged by the leader's heartbeats; for anyone else openraft
/// answers that it does not lead.
fn may_go(metrics: &Metrics, node: NodeId, lease: Duration) -> Result<(), MembershipError> {
    let Some(heartbeats) = &metrics.heartbeat else { return Ok(()) };
    let remaining: BTreeSet<u64> =
        metrics.membership_config.voter_ids().filter(|voter| *voter != node.0).collect();
    if remaining.is_empty() {
        return Err(MembershipError::LastVoter { node });
    }
    let lately: BTreeMap<u64, bool> =
        heartbeats.iter().map(|(voter, at)| (*voter, at.is_some_and(|at| at.elapsed() < lease))).collect();
    let answers = |voter: &&u64| **voter == metrics.id || lately.get(*voter).copied().unwrap_or(false);
    let reachable = remaining.iter().filter(answers).count();
    if reachable * 2 <= remaining.len() {
        return Err(MembershipError::NoQuorum { node, voters: remaining.len(), reachable });
    }
    Ok(())
}
