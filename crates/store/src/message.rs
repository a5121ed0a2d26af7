//! The protobuf messages of this crate: between managers, and in records on disk.
//!
//! Tags are for ever. A new field gets a new tag and a meaning for its absence, so that managers of two versions can
//! work side by side.

use bytes::Bytes;
use prost::{Message, Oneof};

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct LogId {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) node: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) index: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Vote {
    #[prost(uint64, tag = "1")]
    pub(crate) term: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) node: u64,
    #[prost(bool, tag = "3")]
    pub(crate) committed: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Voters {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) nodes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Membership {
    /// One set, or two while the membership changes.
    #[prost(message, repeated, tag = "1")]
    pub(crate) configs: Vec<Voters>,
    /// All members, learners too.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) nodes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredMembership {
    #[prost(message, optional, tag = "1")]
    pub(crate) id: Option<LogId>,
    #[prost(message, optional, tag = "2")]
    pub(crate) membership: Option<Membership>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(message, optional, tag = "1")]
    pub(crate) id: Option<LogId>,
    #[prost(oneof = "Payload", tags = "2, 3, 4")]
    pub(crate) payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Payload {
    #[prost(message, tag = "2")]
    Blank(Empty),
    /// As `wire::log` writes it.
    #[prost(bytes = "bytes", tag = "3")]
    Proposal(Bytes),
    #[prost(message, tag = "4")]
    Membership(Membership),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotMeta {
    #[prost(message, optional, tag = "1")]
    pub(crate) last: Option<LogId>,
    #[prost(message, optional, tag = "2")]
    pub(crate) membership: Option<StoredMembership>,
}

// On disk.

/// Whose directory this is; written once.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Identity {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) cluster: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) node: u64,
}

/// Commits a stored snapshot: its records are those of this generation.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredSnapshot {
    #[prost(message, optional, tag = "1")]
    pub(crate) meta: Option<SnapshotMeta>,
    #[prost(uint64, tag = "2")]
    pub(crate) generation: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) records: u64,
}

// Between managers.

/// Around every request, so that what was meant for another node or another cluster is refused.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) cluster: Bytes,
    #[prost(uint64, tag = "2")]
    pub(crate) to: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AppendRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) previous: Option<LogId>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) entries: Vec<Entry>,
    #[prost(message, optional, tag = "4")]
    pub(crate) committed: Option<LogId>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AppendResponse {
    #[prost(oneof = "Appended", tags = "1, 2, 3, 4")]
    pub(crate) appended: Option<Appended>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(crate) enum Appended {
    #[prost(message, tag = "1")]
    All(Empty),
    #[prost(message, tag = "2")]
    Upto(MaybeLogId),
    #[prost(message, tag = "3")]
    Conflict(Empty),
    #[prost(message, tag = "4")]
    HigherVote(Vote),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct MaybeLogId {
    #[prost(message, optional, tag = "1")]
    pub(crate) id: Option<LogId>,
}

/// Of a vote and of a pre-vote.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct VoteRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) last: Option<LogId>,
    #[prost(bool, tag = "3")]
    pub(crate) leadership_transfer: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct VoteResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(bool, tag = "2")]
    pub(crate) granted: bool,
    #[prost(message, optional, tag = "3")]
    pub(crate) last: Option<LogId>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct TransferRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) from: Option<Vote>,
    #[prost(uint64, tag = "2")]
    pub(crate) to: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) last: Option<LogId>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct TransferResponse {
    #[prost(oneof = "Transferred", tags = "1, 2, 3")]
    pub(crate) transferred: Option<Transferred>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(crate) enum Transferred {
    #[prost(message, tag = "1")]
    Accepted(Empty),
    #[prost(message, tag = "2")]
    VoteChanged(VoteChanged),
    #[prost(message, tag = "3")]
    LogBehind(LogBehind),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct VoteChanged {
    #[prost(message, optional, tag = "1")]
    pub(crate) expected: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) actual: Option<Vote>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct LogBehind {
    #[prost(message, optional, tag = "1")]
    pub(crate) expected: Option<LogId>,
    #[prost(message, optional, tag = "2")]
    pub(crate) actual: Option<LogId>,
}

/// Sent ahead of a snapshot's frames.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotHeader {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
    #[prost(message, optional, tag = "2")]
    pub(crate) meta: Option<SnapshotMeta>,
}

/// One item of a snapshot's stream. A stream without an end, or whose end counts otherwise, was cut.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotFrame {
    #[prost(oneof = "Framed", tags = "1, 2")]
    pub(crate) framed: Option<Framed>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Framed {
    /// As `wire::snapshot` writes it.
    #[prost(bytes = "bytes", tag = "1")]
    Record(Bytes),
    /// How many records came before.
    #[prost(uint64, tag = "2")]
    End(u64),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct SnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) vote: Option<Vote>,
}
