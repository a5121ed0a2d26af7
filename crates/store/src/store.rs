//! The handle that everyone holds.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use model::{LogIndex, NodeId};
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
};
use prost::Message;
use state::{Outcome, Proposal, State};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::convert::{self, Malformed};
use crate::engine::Engine;
use crate::feed::{Feed, Watch};
use crate::flush;
use crate::identity::{self, cluster_bytes};
use crate::leadership::{self, Leadership};
use crate::log::Log;
use crate::machine::Machine;
use crate::message::{Envelope, Framed, SnapshotFrame};
use crate::peer::Peers;
use crate::raft::{LogId, Raft, Runtime, Snapshot, Submission, TypeConfig};
use crate::record::Damage;
use crate::shelf::Shelf;
use crate::transport::{RaftRequest, Transport, TransportError};

/// The largest proposal. Well below a gRPC message's limit, and far above what a planner puts into one.
const MAX_PROPOSAL: usize = 2 << 20;

/// One manager's part of the replicated state. Cheap to clone; all clones are the same manager.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    feed: Arc<Feed>,
    leadership: watch::Receiver<Leadership>,
    config: Config,
    /// Owned here, so that they end with the last handle at the latest.
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("node", &self.inner.config.node).finish_non_exhaustive()
    }
}

/// Why a manager does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the Raft timing cannot work")]
    Config(#[source] Box<dyn Error + Send + Sync>),
    #[error("the data directory belongs to manager {owner} or to another cluster, and this is {node}")]
    Foreign { owner: NodeId, node: NodeId },
    #[error("the data directory held the log of manager {node} and is empty now")]
    Emptied { node: NodeId },
    #[error("the data directory has format {found}, and this version of gantry reads format {known}")]
    Format { found: u32, known: u32 },
    #[error(
        "the data directory is damaged; remove this node from the cluster, clear the directory and join again"
    )]
    Damaged(#[from] Damage),
    #[error("Raft does not start from what is in the data directory")]
    Raft(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a cluster was not founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    #[error("this manager is in a cluster already")]
    Founded,
    #[error("this manager did not become the leader of its own cluster within {0:?}")]
    TimedOut(Duration),
    #[error("the store has stopped")]
    Stopped,
}

/// Why there is no answer to a proposal.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// It has had no effect and never will. The leader, if one is known, is the one to ask.
    #[error("this manager does not lead")]
    NotLeader { leader: Option<NodeId> },
    #[error("the proposal has {bytes} bytes, and {limit} is the most", limit = MAX_PROPOSAL)]
    TooLarge { bytes: usize },
    /// It may have taken effect, or may yet. Proposing again is safe with the same request id, or where the commands'
    /// preconditions make it so.
    #[error("it is not known whether the proposal took effect: {reason}")]
    Unknown { reason: &'static str },
    /// As `Unknown`, and this manager will never know.
    #[error("the store has stopped")]
    Stopped,
}

/// Why a read is not known to be current.
#[derive(Debug, thiserror::Error)]
pub enum LinearizeError {
    #[error("this manager does not lead")]
    NotLeader { leader: Option<NodeId> },
    #[error("no majority of the managers answered")]
    NoQuorum,
    #[error("the store has stopped")]
    Stopped,
}

/// Why a request of another manager was not answered.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    #[error("the request cannot be understood")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
    #[error("the request is for manager {to} or for another cluster, and this is {node}")]
    Misdirected { to: NodeId, node: NodeId },
    #[error("the snapshot was cut off")]
    Cut(#[source] Option<TransportError>),
    #[error("the store has stopped")]
    Stopped,
}

/// Why a manager's store stopped. The process should end: only a start from disk can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the Raft log or a snapshot cannot be written or read")]
    Disk(#[source] Box<dyn Error + Send + Sync>),
    #[error("Raft panicked")]
    Panicked,
    #[error("the store was shut down")]
    Stopped,
}

/// How this manager's part is doing; for `inspect`, metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub leadership: Leadership,
    pub term: u64,
    pub voters: BTreeSet<NodeId>,
    /// The last entry in its log, the last known committed, the last applied.
    pub last: Option<LogIndex>,
    pub committed: Option<LogIndex>,
    pub applied: Option<LogIndex>,
    /// The last entry in the snapshot, and the last one that is no longer in the log.
    pub snapshot: Option<LogIndex>,
    pub purged: Option<LogIndex>,
}

impl Store {
    /// Starts a manager from what is in `engine`: checks every record, loads the snapshot, and applies what is known to
    /// be committed. In an empty one it writes this node's identity first, and then waits to be founded or added.
    ///
    /// Raft's tasks run on the runtime that calls this. A daemon gives them one of their own, so that heartbeats do not
    /// wait behind other work; a simulation calls it on its paused one.
    pub async fn start(
        config: Config,
        engine: impl Engine,
        transport: impl Transport,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(config.raft().map_err(|error| StartError::Config(Box::new(error)))?);
        let engine: Arc<dyn Engine> = Arc::new(engine);
        identity::claim(&engine, &config).await?;
        let mut tasks = JoinSet::new();
        let (flusher, flush_task) = flush::flusher(engine.clone());
        tasks.spawn(flush_task.run());
        let log = Log::open(engine.clone(), flusher.clone())?;
        let shelf = Shelf::open(engine, flusher)?;
        covered(log.purged(), shelf.current().and_then(|snapshot| snapshot.meta.last_log_id))?;
        let feed = Feed::new();
        let machine = Machine::new(shelf, feed.clone());
        let peers = Peers::new(Arc::new(transport), &config);
        let raft = Runtime::scope(config.seed, Raft::new(config.node.0, settings, peers, log, machine)).await;
        let raft = raft.map_err(|error| StartError::Raft(Box::new(error)))?;
        let (published, leadership) = watch::channel(Leadership::Follower { leader: None });
        tasks.spawn(leadership::follow(raft.metrics(), published, config.lease()));
        Ok(Self { inner: Arc::new(Inner { raft, feed, leadership, config, tasks: Mutex::new(tasks) }) })
    }

    /// Founds a cluster with this manager as the only voter, and returns when it leads.
    pub async fn initialize(&self) -> Result<(), FoundError> {
        match self.raft().initialize(BTreeSet::from([self.inner.config.node.0])).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_) | InitializeError::NotInMembers(_))) => {
                return Err(FoundError::Founded);
            }
            Err(RaftError::Fatal(_)) => return Err(FoundError::Stopped),
        }
        let limit = self.inner.config.commit_timeout;
        let mut leadership = self.leadership();
        match tokio::time::timeout(limit, leadership.wait_for(|now| now.is_leader())).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_gone)) => Err(FoundError::Stopped),
            Err(_elapsed) => Err(FoundError::TimedOut(limit)),
        }
    }

    /// Proposes commands and returns the verdict on each, in order, when the entry is committed and applied here.
    ///
    /// Many proposals may be under way at once; those that come while the disk syncs share the next sync.
    pub async fn propose(&self, proposal: Proposal) -> Result<Vec<Outcome>, ProposeError> {
        let submission = Submission::new(proposal);
        let bytes = submission.encoded.len();
        if bytes > MAX_PROPOSAL {
            return Err(ProposeError::TooLarge { bytes });
        }
        let write = self.raft().client_write(submission);
        match tokio::time::timeout(self.inner.config.commit_timeout, write).await {
            Ok(Ok(written)) => Ok(written.data.0),
            Ok(Err(RaftError::APIError(error))) => Err(not_written(error)),
            Ok(Err(RaftError::Fatal(_))) => Err(ProposeError::Stopped),
            Err(_elapsed) => {
                Err(ProposeError::Unknown { reason: "no majority of the managers answered in time" })
            }
        }
    }

    /// The latest state applied here, which may be behind the leader's. Costs nothing.
    pub fn state(&self) -> State {
        self.inner.feed.state()
    }

    /// Follows the state from here on.
    pub fn watch(&self) -> Watch {
        self.inner.feed.watch()
    }

    /// A state that holds everything that was acknowledged, by whomever, before this call. Asks a majority whether this
    /// manager still leads; reads that wait at the same time share the round.
    pub async fn linearize(&self) -> Result<State, LinearizeError> {
        let confirmed = self.raft().ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(self.inner.config.commit_timeout, confirmed).await {
            Ok(Ok(_)) => Ok(self.state()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(LinearizeError::NotLeader { leader: leader_of(&forward) })
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) | Err(_) => {
                Err(LinearizeError::NoQuorum)
            }
            Ok(Err(RaftError::Fatal(_))) => Err(LinearizeError::Stopped),
        }
    }

    /// Who leads. The sender is gone when the store has stopped.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Asks the manager whose log is the most complete to lead instead of this one, so that stopping costs no election
    /// timeout. Says which; whether it took over shows in [`Store::leadership`]. Does nothing unless this one leads.
    pub async fn hand_over(&self) -> Option<NodeId> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let others =
            metrics.replication?.into_iter().filter(|(id, _)| *id != metrics.id && voters.contains(id));
        let (heir, _) = others.max_by_key(|(_, matched)| matched.map(|at| at.index))?;
        self.raft().trigger().transfer_leader(heir).await.ok()?;
        Some(NodeId(heir))
    }

    pub fn health(&self) -> Health {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let index = |id: Option<LogId>| id.map(|id| LogIndex(id.index));
        Health {
            leadership: *self.inner.leadership.borrow(),
            term: metrics.current_term,
            voters: metrics.membership_config.voter_ids().map(NodeId).collect(),
            last: metrics.last_log_index.map(LogIndex),
            committed: index(metrics.local_committed),
            applied: index(metrics.last_applied),
            snapshot: index(metrics.snapshot),
            purged: index(metrics.purged),
        }
    }

    /// Answers a request of another manager, whom the caller has authenticated.
    pub async fn handle(&self, request: RaftRequest) -> Result<Vec<u8>, HandleError> {
        match request {
            RaftRequest::Append(bytes) => {
                let request = convert::to_append(self.addressed(bytes)?)?;
                let response = self.raft().append_entries(request).await?;
                Ok(convert::from_appended(&response).encode_to_vec())
            }
            RaftRequest::Vote(bytes) => {
                let request = convert::to_vote_request(self.addressed(bytes)?)?;
                let response = self.raft().vote(request).await?;
                Ok(convert::from_vote_response(&response).encode_to_vec())
            }
            RaftRequest::PreVote(bytes) => {
                let request = convert::to_vote_request(self.addressed(bytes)?)?;
                let response = self.raft().pre_vote(request).await?;
                Ok(convert::from_vote_response(&response).encode_to_vec())
            }
            RaftRequest::Transfer(bytes) => {
                let request = convert::to_transfer(self.addressed(bytes)?)?;
                let response = self.raft().handle_transfer_leader(request).await?;
                Ok(convert::from_transferred(&response).encode_to_vec())
            }
        }
    }

    /// Installs a snapshot that another manager sends, whom the caller has authenticated. A stream that ends early
    /// changes nothing.
    pub async fn handle_snapshot(
        &self,
        header: Vec<u8>,
        records: BoxStream<'static, Result<Vec<u8>, TransportError>>,
    ) -> Result<Vec<u8>, HandleError> {
        let (vote, meta) = convert::to_header(self.addressed(header)?)?;
        let snapshot = receive(records).await?;
        let response = self.raft().install_full_snapshot(vote, Snapshot { meta, snapshot }).await?;
        Ok(convert::from_installed(&response).encode_to_vec())
    }

    /// Ends Raft's tasks, and returns when nothing more is written or sent. Proposals under way stay unknown.
    pub async fn shutdown(&self) {
        if let Err(error) = self.raft().shutdown().await {
            tracing::warn!(%error, "Raft did not stop in order");
        }
        let mut tasks =
            std::mem::take(&mut *self.inner.tasks.lock().expect("no code panics while it holds the tasks"));
        tasks.shutdown().await;
    }

    /// Returns when this manager cannot go on. The daemon waits for it and exits.
    pub async fn failed(&self) -> Failure {
        let mut metrics = self.raft().metrics();
        loop {
            let running = metrics.borrow_and_update().running_state.clone();
            match running {
                Ok(()) => {}
                Err(Fatal::Stopped) => return Failure::Stopped,
                Err(Fatal::Panicked) => return Failure::Panicked,
                Err(Fatal::StorageError(error)) => return Failure::Disk(Box::new(error)),
            }
            if metrics.changed().await.is_err() {
                // The core always leaves its last words, unless it had no chance to.
                return Failure::Panicked;
            }
        }
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    /// What is in an envelope that is addressed to this manager.
    fn addressed<M: Message + Default>(&self, bytes: Vec<u8>) -> Result<M, HandleError> {
        let Envelope { cluster, to, body } = Envelope::decode(Bytes::from(bytes)).map_err(Malformed::from)?;
        let Config { node, cluster: ours, .. } = &self.inner.config;
        if to != node.0 || cluster != cluster_bytes(*ours) {
            return Err(HandleError::Misdirected { to: NodeId(to), node: *node });
        }
        Ok(M::decode(body).map_err(Malformed::from)?)
    }
}

/// Whether the snapshot holds what is no longer in the log.
fn covered(purged: Option<u64>, snapshot: Option<LogId>) -> Result<(), Damage> {
    match (purged, snapshot) {
        (None, _) => Ok(()),
        (Some(purged), None) => Err(Damage::MissingSnapshot { purged }),
        (Some(purged), Some(last)) if last.index < purged => {
            Err(Damage::OldSnapshot { snapshot: last.index, purged })
        }
        (Some(_), Some(_)) => Ok(()),
    }
}

fn leader_of(forward: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
    forward.leader_id.map(NodeId)
}

fn not_written(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => ProposeError::NotLeader { leader: leader_of(&forward) },
        ClientWriteError::LogEntryDiscarded(_) => {
            ProposeError::Unknown { reason: "another manager became the leader meanwhile" }
        }
        ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_) => {
            ProposeError::Unknown { reason: "Raft answered as if it had been asked something else" }
        }
    }
}

async fn receive(
    mut records: BoxStream<'static, Result<Vec<u8>, TransportError>>,
) -> Result<State, HandleError> {
    let mut loader = wire::snapshot::Loader::new();
    let mut count = 0;
    while let Some(frame) = records.next().await {
        let frame = frame.map_err(|error| HandleError::Cut(Some(error)))?;
        let frame = SnapshotFrame::decode(Bytes::from(frame)).map_err(Malformed::from)?;
        match frame.framed.ok_or(Malformed::Missing("record"))? {
            Framed::Record(record) => {
                loader.push(&record).map_err(Malformed::Record)?;
                count += 1;
            }
            Framed::End(sent) if sent == count => return Ok(loader.finish().map_err(Malformed::Record)?),
            Framed::End(_) => break,
        }
    }
    Err(HandleError::Cut(None))
}

impl From<Malformed> for HandleError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(Box::new(error))
    }
}

impl From<RaftError<TypeConfig>> for HandleError {
    fn from(_: RaftError<TypeConfig>) -> Self {
        Self::Stopped
    }
}

impl From<Fatal<TypeConfig>> for HandleError {
    fn from(_: Fatal<TypeConfig>) -> Self {
        Self::Stopped
    }
}
