//! Raft between managers, over gRPC. What is carried is opaque here: `store` writes and reads it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use identity::{Connector, Expect};
use model::NodeId;
use store::{RaftRequest, Store, Transport, TransportError};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use wire::proto::raft::raft_client::RaftClient;
use wire::proto::raft::raft_server::Raft;
use wire::proto::raft::{self, Kind, Part, Reply};

use crate::members::Members;

/// Appends and snapshots are bounded by `store`; this is what a message may have at most.
const MESSAGE: usize = 64 << 20;

/// Connections to the other managers: one for requests and another for snapshots, so that no heartbeat waits behind one.
#[derive(Clone, Debug)]
pub struct Peers {
    connector: Connector,
    members: Members,
    // A std mutex: it is held for one map operation and never across an await.
    channels: Arc<Mutex<BTreeMap<(NodeId, Use), Channel>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Requests,
    Snapshots,
}

#[derive(Debug, thiserror::Error)]
#[error("its address is not known here")]
struct NoAddress;

impl Peers {
    pub fn new(connector: Connector, members: Members) -> Self {
        Self { connector, members, channels: Arc::default() }
    }

    fn client(&self, node: NodeId, purpose: Use) -> Result<RaftClient<Channel>, TransportError> {
        let unknown = || TransportError::Unreachable { node, source: Box::new(NoAddress) };
        let address = self.members.address(node).ok_or_else(unknown)?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let connect = || self.connector.connect_lazily(address, Expect::Node(node));
        let channel = channels.entry((node, purpose)).or_insert_with(connect).clone();
        Ok(RaftClient::new(channel).max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE))
    }

    fn failed(&self, node: NodeId, purpose: Use, status: Status) -> TransportError {
        if status.code() == tonic::Code::FailedPrecondition || status.code() == tonic::Code::PermissionDenied
        {
            return TransportError::Refused { node, reason: status.message().to_owned() };
        }
        // Made anew the next time: the node may have come back under another address.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&(node, purpose));
        TransportError::Unreachable { node, source: Box::new(status) }
    }
}

impl Transport for Peers {
    fn call(
        &self,
        target: NodeId,
        request: RaftRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let peers = self.clone();
        async move {
            let mut client = peers.client(target, Use::Requests)?;
            let call = client.call(message(request));
            match tokio::time::timeout(deadline, call).await {
                Ok(Ok(reply)) => Ok(reply.into_inner().body),
                Ok(Err(status)) => Err(peers.failed(target, Use::Requests, status)),
                Err(_) => Err(TransportError::TimedOut { node: target, after: deadline }),
            }
        }
        .boxed()
    }

    fn snapshot(
        &self,
        target: NodeId,
        header: Vec<u8>,
        records: BoxStream<'static, Vec<u8>>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let peers = self.clone();
        let header = futures::stream::once(std::future::ready(header));
        let parts = Parts(header.chain(records).map(part).boxed());
        async move {
            let mut client = peers.client(target, Use::Snapshots)?;
            let call = client.snapshot(parts);
            match tokio::time::timeout(deadline, call).await {
                Ok(Ok(reply)) => Ok(reply.into_inner().body),
                Ok(Err(status)) => Err(peers.failed(target, Use::Snapshots, status)),
                Err(_) => Err(TransportError::TimedOut { node: target, after: deadline }),
            }
        }
        .boxed()
    }
}

/// A snapshot on its way. A type of its own, since rustc cannot see through a boxed stream that a call of tonic's is `Send`.
struct Parts(BoxStream<'static, Part>);

impl Stream for Parts {
    type Item = Part;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Part>> {
        self.0.poll_next_unpin(context)
    }
}

fn part(body: Vec<u8>) -> Part {
    Part { body }
}

fn message(request: RaftRequest) -> raft::Request {
    let (kind, body) = match request {
        RaftRequest::Append(body) => (Kind::Append, body),
        RaftRequest::Vote(body) => (Kind::Vote, body),
        RaftRequest::PreVote(body) => (Kind::PreVote, body),
        RaftRequest::Transfer(body) => (Kind::Transfer, body),
    };
    raft::Request { kind: kind.into(), body }
}

/// The service that other managers call.
#[derive(Clone, Debug)]
pub struct Grpc {
    node: NodeId,
    store: Store,
}

impl Grpc {
    pub fn new(node: NodeId, store: Store) -> Self {
        Self { node, store }
    }
}

fn refused(error: store::HandleError) -> Status {
    match error {
        store::HandleError::Stopped => Status::unavailable(error.to_string()),
        store::HandleError::Malformed(_)
        | store::HandleError::Misdirected { .. }
        | store::HandleError::Cut(_) => Status::failed_precondition(error.to_string()),
    }
}

#[tonic::async_trait]
impl Raft for Grpc {
    async fn call(&self, request: Request<raft::Request>) -> Result<Response<Reply>, Status> {
        let request = request.into_inner();
        let kind = request.kind();
        let request = match kind {
            Kind::Append => RaftRequest::Append(request.body),
            Kind::Vote => RaftRequest::Vote(request.body),
            Kind::PreVote => RaftRequest::PreVote(request.body),
            Kind::Transfer => RaftRequest::Transfer(request.body),
            Kind::Unspecified => {
                return Err(Status::failed_precondition("a Raft request of an unknown kind"));
            }
        };
        let body = self.store.handle(request).await.map_err(refused)?;
        Ok(Response::new(Reply { body }))
    }

    async fn snapshot(&self, request: Request<Streaming<Part>>) -> Result<Response<Reply>, Status> {
        let node = self.node;
        let mut parts = request.into_inner();
        let Some(header) = parts.message().await? else {
            return Err(Status::failed_precondition("a snapshot without a header"));
        };
        let cut = move |status| TransportError::Unreachable { node, source: Box::new(status) };
        let records: Pin<Box<dyn Stream<Item = Result<Vec<u8>, TransportError>> + Send>> =
            Box::pin(parts.map(move |part: Result<Part, Status>| part.map(|part| part.body).map_err(cut)));
        let body = self.store.handle_snapshot(header.body, records).await.map_err(refused)?;
        Ok(Response::new(Reply { body }))
    }
}
