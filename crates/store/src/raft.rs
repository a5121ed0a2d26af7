//! openraft's types with our choices filled in.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::EmptyNode;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use state::{Outcome, Proposal};

use crate::machine::Machine;

/// The one runtime of all builds, real and simulated. Election timeouts are drawn from [`crate::Config::seed`]; all code
/// that makes openraft spawn a task has to run in [`DeterministicRng::scope`].
pub(crate) type Runtime = DeterministicRng<TokioRuntime>;

openraft::declare_raft_types!(
    /// Nodes carry no address here: who a node is reached at is replicated state, and the transport's business.
    /// Leader ids are openraft's default `(term, node)`, the ones that upstream's fuzzer runs with.
    pub(crate) TypeConfig:
        D = Submission,
        R = Answer,
        NodeId = u64,
        Node = EmptyNode,
        AsyncRuntime = Runtime,
);

// Spelled out, and not as projections of `TypeConfig`, so that they can be taken apart in patterns.
pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = openraft::EntryPayload<Submission, u64, EmptyNode>;
pub(crate) type Entry = openraft::Entry<LeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, EmptyNode>;
pub(crate) type Snapshot = openraft::Snapshot<LeaderId, u64, EmptyNode, state::State>;
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;
pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// A proposal with its encoding, so that it is encoded once whatever number of disks and followers it goes to.
#[derive(Clone)]
pub(crate) struct Submission {
    pub(crate) proposal: Arc<Proposal>,
    pub(crate) encoded: Bytes,
}

impl Submission {
    pub(crate) fn new(proposal: Proposal) -> Self {
        let encoded = Bytes::from(wire::log::encode(&proposal));
        Self { proposal: Arc::new(proposal), encoded }
    }

    pub(crate) fn decode(encoded: Bytes) -> Result<Self, wire::Invalid> {
        let proposal = Arc::new(wire::log::decode(&encoded)?);
        Ok(Self { proposal, encoded })
    }
}

// Both are what openraft logs. A proposal may hold secrets, so neither shows more than its size.
impl fmt::Display for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands in {} bytes", self.proposal.commands.len(), self.encoded.len())
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Submission({self})")
    }
}

/// The verdicts on a submission's commands; empty for entries that are not submissions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer(pub(crate) Vec<Outcome>);
