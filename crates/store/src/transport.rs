//! What carries messages between managers.

use std::error::Error;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use model::NodeId;

/// A request of one manager to another: protobuf inside, opaque outside. The kind travels beside it, as the method of an
/// RPC does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RaftRequest {
    Append(Vec<u8>),
    Vote(Vec<u8>),
    PreVote(Vec<u8>),
    Transfer(Vec<u8>),
}

/// Connections to the other managers; the real one speaks gRPC, a simulated one hands messages over with delays and
/// losses.
///
/// What arrives at a node is given to its [`Store::handle`](crate::Store::handle) and
/// [`Store::handle_snapshot`](crate::Store::handle_snapshot), and the answer is carried back. An implementation makes
/// sure that it reached `target` and no one else (by its certificate), keeps appends to one target in order, and gives a
/// snapshot a connection of its own, so that heartbeats do not wait behind it. Deadlines are enforced by the caller as
/// well: an implementation may use them to give up earlier on its side.
pub trait Transport: Send + Sync + 'static {
    /// Carries one request and brings the answer.
    fn call(
        &self,
        target: NodeId,
        request: RaftRequest,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>>;

    /// Carries a snapshot: a header, then records, each well below a gRPC message's limit. The records are made as they
    /// are pulled; an implementation pulls as fast as the target takes them.
    fn snapshot(
        &self,
        target: NodeId,
        header: Vec<u8>,
        records: BoxStream<'static, Vec<u8>>,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>>;
}

/// Why there is no answer. In every case the request may have been carried out.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("manager {node} cannot be reached")]
    Unreachable {
        node: NodeId,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("manager {node} did not answer within {after:?}")]
    TimedOut { node: NodeId, after: Duration },
    /// It is there, and said no: it is stopping, or does not know us.
    #[error("manager {node} refused the request: {reason}")]
    Refused { node: NodeId, reason: String },
}
