//! Between openraft's types and our messages, converted once at the edge. Everything is taken apart in full, so that a
//! field which a new openraft brings fails to compile here.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EmptyNode;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::message;
use crate::message::{Appended, Empty, Framed, Transferred};
use crate::raft::{
    Entry, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Submission, TypeConfig, Vote,
};

/// Why a message means nothing to us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("it is not the expected protobuf message")]
    Protobuf(#[from] prost::DecodeError),
    #[error("its {0} is missing")]
    Missing(&'static str),
    #[error("it holds a proposal that cannot be read")]
    Proposal(#[source] wire::Invalid),
    #[error("it is not a record of a snapshot")]
    Record(#[source] wire::Invalid),
    #[error("its membership is not a valid one")]
    Membership(#[source] openraft::errors::MembershipError<u64>),
    #[error("its entries do not follow one another at index {0}")]
    Gap(u64),
    #[error("its snapshot is newer than the leader that sends it")]
    FromTheFuture,
}

pub(crate) fn from_log_id(id: &LogId) -> message::LogId {
    let openraft::LogId { leader_id: LeaderId { term, node_id }, index } = *id;
    message::LogId { term, node: node_id, index }
}

pub(crate) fn to_log_id(id: message::LogId) -> LogId {
    let message::LogId { term, node, index } = id;
    LogId { leader_id: LeaderId { term, node_id: node }, index }
}

pub(crate) fn from_vote(vote: &Vote) -> message::Vote {
    let openraft::Vote { leader_id: LeaderId { term, node_id }, committed } = *vote;
    message::Vote { term, node: node_id, committed }
}

pub(crate) fn to_vote(vote: Option<message::Vote>) -> Result<Vote, Malformed> {
    let message::Vote { term, node, committed } = vote.ok_or(Malformed::Missing("vote"))?;
    Ok(Vote { leader_id: LeaderId { term, node_id: node }, committed })
}

fn from_membership(membership: &Membership) -> message::Membership {
    let configs = membership.get_joint_config().iter();
    message::Membership {
        configs: configs.map(|voters| message::Voters { nodes: voters.iter().copied().collect() }).collect(),
        nodes: membership.nodes().map(|(&node, EmptyNode {})| node).collect(),
    }
}

fn to_membership(membership: message::Membership) -> Result<Membership, Malformed> {
    let message::Membership { configs, nodes } = membership;
    let configs: Vec<BTreeSet<u64>> =
        configs.into_iter().map(|voters| voters.nodes.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, EmptyNode> = nodes.into_iter().map(|node| (node, EmptyNode {})).collect();
    Membership::new(configs, nodes).map_err(Malformed::Membership)
}

pub(crate) fn from_entry(entry: &Entry) -> message::Entry {
    let openraft::Entry { log_id, payload } = entry;
    let payload = match payload {
        Payload::Blank => message::Payload::Blank(Empty {}),
        Payload::Normal(Submission { proposal: _, encoded }) => message::Payload::Proposal(encoded.clone()),
        Payload::Membership(membership) => message::Payload::Membership(from_membership(membership)),
    };
    message::Entry { id: Some(from_log_id(log_id)), payload: Some(payload) }
}

pub(crate) fn to_entry(entry: message::Entry) -> Result<Entry, Malformed> {
    let message::Entry { id, payload } = entry;
    let log_id = to_log_id(id.ok_or(Malformed::Missing("log id"))?);
    let payload = match payload.ok_or(Malformed::Missing("payload"))? {
        message::Payload::Blank(Empty {}) => Payload::Blank,
        message::Payload::Proposal(encoded) => {
            Payload::Normal(Submission::decode(encoded).map_err(Malformed::Proposal)?)
        }
        message::Payload::Membership(membership) => Payload::Membership(to_membership(membership)?),
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn from_meta(meta: &SnapshotMeta) -> message::SnapshotMeta {
    let openraft::SnapshotMeta { last_log_id, last_membership } = meta;
    message::SnapshotMeta {
        last: last_log_id.as_ref().map(from_log_id),
        membership: Some(message::StoredMembership {
            id: last_membership.log_id().as_ref().map(from_log_id),
            membership: Some(from_membership(last_membership.membership())),
        }),
    }
}

pub(crate) fn to_meta(meta: Option<message::SnapshotMeta>) -> Result<SnapshotMeta, Malformed> {
    let message::SnapshotMeta { last, membership } =
        meta.ok_or(Malformed::Missing("snapshot description"))?;
    let message::StoredMembership { id, membership } = membership.ok_or(Malformed::Missing("membership"))?;
    let membership = to_membership(membership.ok_or(Malformed::Missing("membership"))?)?;
    Ok(SnapshotMeta {
        last_log_id: last.map(to_log_id),
        last_membership: StoredMembership::new(id.map(to_log_id), membership),
    })
}

pub(crate) fn from_append(request: &AppendEntriesRequest<TypeConfig>) -> message::AppendRequest {
    let AppendEntriesRequest { vote, prev_log_id, entries, leader_commit } = request;
    message::AppendRequest {
        vote: Some(from_vote(vote)),
        previous: prev_log_id.as_ref().map(from_log_id),
        entries: entries.iter().map(from_entry).collect(),
        committed: leader_commit.as_ref().map(from_log_id),
    }
}

/// Refuses entries that do not follow one another: openraft trusts its input, and a hole in the log is for ever.
pub(crate) fn to_append(
    request: message::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let message::AppendRequest { vote, previous, entries, committed } = request;
    let mut next = previous.map_or(0, |id| id.index.saturating_add(1));
    let mut converted = Vec::with_capacity(entries.len());
    for entry in entries {
        let entry = to_entry(entry)?;
        if entry.log_id.index != next {
            return Err(Malformed::Gap(next));
        }
        next = next.saturating_add(1);
        converted.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote: to_vote(vote)?,
        prev_log_id: previous.map(to_log_id),
        entries: converted,
        leader_commit: committed.map(to_log_id),
    })
}

pub(crate) fn from_appended(response: &AppendEntriesResponse<TypeConfig>) -> message::AppendResponse {
    let appended = match response {
        AppendEntriesResponse::Success => Appended::All(Empty {}),
        AppendEntriesResponse::PartialSuccess(id) => {
            Appended::Upto(message::MaybeLogId { id: id.as_ref().map(from_log_id) })
        }
        AppendEntriesResponse::Conflict => Appended::Conflict(Empty {}),
        AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(from_vote(vote)),
    };
    message::AppendResponse { appended: Some(appended) }
}

pub(crate) fn to_appended(
    response: message::AppendResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, Malformed> {
    Ok(match response.appended.ok_or(Malformed::Missing("outcome"))? {
        Appended::All(Empty {}) => AppendEntriesResponse::Success,
        Appended::Upto(message::MaybeLogId { id }) => {
            AppendEntriesResponse::PartialSuccess(id.map(to_log_id))
        }
        Appended::Conflict(Empty {}) => AppendEntriesResponse::Conflict,
        Appended::HigherVote(vote) => AppendEntriesResponse::HigherVote(to_vote(Some(vote))?),
    })
}

pub(crate) fn from_vote_request(request: &VoteRequest<TypeConfig>) -> message::VoteRequest {
    let VoteRequest { vote, last_log_id, leadership_transfer } = request;
    message::VoteRequest {
        vote: Some(from_vote(vote)),
        last: last_log_id.as_ref().map(from_log_id),
        leadership_transfer: *leadership_transfer,
    }
}

pub(crate) fn to_vote_request(request: message::VoteRequest) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let message::VoteRequest { vote, last, leadership_transfer } = request;
    Ok(VoteRequest { vote: to_vote(vote)?, last_log_id: last.map(to_log_id), leadership_transfer })
}

pub(crate) fn from_vote_response(response: &VoteResponse<TypeConfig>) -> message::VoteResponse {
    let VoteResponse { vote, vote_granted, last_log_id } = response;
    message::VoteResponse {
        vote: Some(from_vote(vote)),
        granted: *vote_granted,
        last: last_log_id.as_ref().map(from_log_id),
    }
}

pub(crate) fn to_vote_response(
    response: message::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, Malformed> {
    let message::VoteResponse { vote, granted, last } = response;
    Ok(VoteResponse { vote: to_vote(vote)?, vote_granted: granted, last_log_id: last.map(to_log_id) })
}

pub(crate) fn from_transfer(request: &TransferLeaderRequest<TypeConfig>) -> message::TransferRequest {
    message::TransferRequest {
        from: Some(from_vote(request.from_leader())),
        to: *request.to_node_id(),
        last: request.last_log_id().map(from_log_id),
    }
}

pub(crate) fn to_transfer(
    request: message::TransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Malformed> {
    let message::TransferRequest { from, to, last } = request;
    Ok(TransferLeaderRequest::new(to_vote(from)?, to, last.map(to_log_id)))
}

pub(crate) fn from_transferred(response: &TransferLeaderResponse<TypeConfig>) -> message::TransferResponse {
    let transferred = match response {
        Ok(()) => Transferred::Accepted(Empty {}),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Transferred::VoteChanged(message::VoteChanged {
                expected: Some(from_vote(expected)),
                actual: Some(from_vote(actual)),
            })
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Transferred::LogBehind(message::LogBehind {
                expected: expected.as_ref().map(from_log_id),
                actual: actual.as_ref().map(from_log_id),
            })
        }
    };
    message::TransferResponse { transferred: Some(transferred) }
}

pub(crate) fn to_transferred(
    response: message::TransferResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, Malformed> {
    Ok(match response.transferred.ok_or(Malformed::Missing("outcome"))? {
        Transferred::Accepted(Empty {}) => Ok(()),
        Transferred::VoteChanged(message::VoteChanged { expected, actual }) => {
            Err(TransferLeaderError::VoteChanged { expected: to_vote(expected)?, actual: to_vote(actual)? })
        }
        Transferred::LogBehind(message::LogBehind { expected, actual }) => {
            Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(to_log_id),
                actual: actual.map(to_log_id),
            })
        }
    })
}

pub(crate) fn from_header(vote: &Vote, meta: &SnapshotMeta) -> message::SnapshotHeader {
    message::SnapshotHeader { vote: Some(from_vote(vote)), meta: Some(from_meta(meta)) }
}

/// Refuses a snapshot that no leader with this vote can have: openraft would panic on it.
pub(crate) fn to_header(header: message::SnapshotHeader) -> Result<(Vote, SnapshotMeta), Malformed> {
    let message::SnapshotHeader { vote, meta } = header;
    let (vote, meta) = (to_vote(vote)?, to_meta(meta)?);
    if meta.last_log_id.is_some_and(|last| last.leader_id > vote.leader_id) {
        return Err(Malformed::FromTheFuture);
    }
    Ok((vote, meta))
}

pub(crate) fn from_installed(response: &SnapshotResponse<TypeConfig>) -> message::SnapshotResponse {
    let SnapshotResponse { vote } = response;
    message::SnapshotResponse { vote: Some(from_vote(vote)) }
}

pub(crate) fn to_installed(
    response: message::SnapshotResponse,
) -> Result<SnapshotResponse<TypeConfig>, Malformed> {
    Ok(SnapshotResponse { vote: to_vote(response.vote)? })
}

pub(crate) fn frame(framed: Framed) -> message::SnapshotFrame {
    message::SnapshotFrame { framed: Some(framed) }
}
