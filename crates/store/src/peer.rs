//! The transport as openraft sees it: one [`Peer`] for each connection that openraft wants.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::{self, BoxStream, StreamExt};
use model::NodeId;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use prost::Message;
use state::State;

use crate::config::Config;
use crate::convert::{self, Malformed};
use crate::identity::cluster_bytes;
use crate::message::{self, Envelope, Framed};
use crate::raft::{Snapshot, TypeConfig, Vote};
use crate::transport::{RaftRequest, Transport, TransportError};

/// Makes peers.
#[derive(Clone)]
pub(crate) struct Peers {
    transport: Arc<dyn Transport>,
    cluster: Bytes,
    node: u64,
    append_timeout: Duration,
}

impl Peers {
    pub(crate) fn new(transport: Arc<dyn Transport>, config: &Config) -> Self {
        Self {
            transport,
            cluster: cluster_bytes(config.cluster),
            node: config.node.0,
            append_timeout: config.append_timeout,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        Peer { peers: self.clone(), target }
    }
}

/// One manager as another one calls it.
pub(crate) struct Peer {
    peers: Peers,
    target: u64,
}

impl Peer {
    fn envelope(&self, body: &impl Message) -> Vec<u8> {
        let body = Bytes::from(body.encode_to_vec());
        Envelope { cluster: self.peers.cluster.clone(), to: self.target, body }.encode_to_vec()
    }

    async fn call<M: Message + Default>(
        &self,
        kind: RPCTypes,
        request: RaftRequest,
        deadline: Duration,
    ) -> Result<M, RPCError<TypeConfig>> {
        let call = self.peers.transport.call(NodeId(self.target), request, deadline);
        // Whatever the transport does, a call ends: one that never does would wedge replication to this manager.
        let answer = match tokio::time::timeout(deadline, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.failed(kind, error)),
            Err(_elapsed) => return Err(RPCError::Timeout(self.timed_out(kind, deadline))),
        };
        M::decode(Bytes::from(answer)).map_err(|error| unintelligible(Malformed::from(error)))
    }

    fn failed(&self, kind: RPCTypes, error: TransportError) -> RPCError<TypeConfig> {
        match error {
            TransportError::TimedOut { node: _, after } => RPCError::Timeout(self.timed_out(kind, after)),
            TransportError::Unreachable { .. } | TransportError::Refused { .. } => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
        }
    }

    fn timed_out(&self, action: RPCTypes, timeout: Duration) -> Timeout<TypeConfig> {
        Timeout { action, id: self.peers.node, target: self.target, timeout }
    }
}

/// Not worth retrying at once: the same manager will give the same answer.
fn unintelligible(reason: impl Display) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(format!("its answer cannot be understood: {reason}")))
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = State;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // openraft offers one heartbeat for everything. That is right for heartbeats; storing entries takes an fsync,
        // and giving up on it would only send them again to a disk that is slow already.
        let deadline = if rpc.entries.is_empty() { option.hard_ttl() } else { self.peers.append_timeout };
        let request = RaftRequest::Append(self.envelope(&convert::from_append(&rpc)));
        let response = self.call(RPCTypes::AppendEntries, request, deadline).await?;
        convert::to_appended(response).map_err(unintelligible)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = RaftRequest::Vote(self.envelope(&convert::from_vote_request(&rpc)));
        let response = self.call(RPCTypes::Vote, request, option.hard_ttl()).await?;
        convert::to_vote_response(response).map_err(unintelligible)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = RaftRequest::PreVote(self.envelope(&convert::from_vote_request(&rpc)));
        let response = self.call(RPCTypes::Vote, request, option.hard_ttl()).await?;
        convert::to_vote_response(response).map_err(unintelligible)
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = RaftRequest::Transfer(self.envelope(&convert::from_transfer(&req)));
        let response = self.call(RPCTypes::TransferLeader, request, option.hard_ttl()).await?;
        convert::to_transferred(response).map_err(unintelligible)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let deadline = option.hard_ttl();
        let header = self.envelope(&convert::from_header(&vote, &snapshot.meta));
        let frames = frames(snapshot.snapshot);
        let sent = self.peers.transport.snapshot(NodeId(self.target), header, frames, deadline);
        let sent = tokio::time::timeout(deadline, sent);
        let answer = match select(pin!(sent), pin!(cancel)).await {
            Either::Left((Ok(Ok(answer)), _)) => answer,
            Either::Left((Ok(Err(error)), _)) => {
                return Err(self.failed(RPCTypes::InstallSnapshot, error).into());
            }
            Either::Left((Err(_elapsed), _)) => {
                return Err(self.timed_out(RPCTypes::InstallSnapshot, deadline).into());
            }
            Either::Right((closed, _)) => return Err(closed.into()),
        };
        let response = message::SnapshotResponse::decode(Bytes::from(answer))
            .map_err(|error| NetworkError::<TypeConfig>::new(&error))?;
        Ok(convert::to_installed(response).map_err(unintelligible)?)
    }
}

/// A state as it is sent: its records, and how many there were. Each is made when the stream is polled for it.
fn frames(state: State) -> BoxStream<'static, Vec<u8>> {
    let mut count = 0;
    let mut records = Some(wire::snapshot::records(&state));
    let frames = std::iter::from_fn(move || {
        let framed = match records.as_mut()?.next() {
            Some(record) => {
                count += 1;
                Framed::Record(Bytes::from(record))
            }
            None => {
                records = None;
                Framed::End(count)
            }
        };
        Some(convert::frame(framed).encode_to_vec())
    });
    stream::iter(frames).boxed()
}
