//! How managers are reached. [`grpc`] is the real way; simulated clusters have a network of their own.

#[cfg(test)]
pub(crate) mod fake;
pub mod grpc;

use std::net::SocketAddr;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use model::NodeId;
use tokio::sync::mpsc;
use wire::proto::agent::{FromAgent, FromManager, Hello};

/// A manager and the address of its daemon. The node is unknown for an address that was only heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub node: Option<NodeId>,
    pub address: SocketAddr,
}

/// An open session with the leader. It has ended when either direction has.
pub struct Session {
    pub outgoing: mpsc::Sender<FromAgent>,
    pub incoming: BoxStream<'static, FromManager>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSession {
    #[error("{asked} does not lead{}", leader.map(|l| format!("; {l} does")).unwrap_or_default())]
    NotLeader { asked: SocketAddr, leader: Option<SocketAddr> },
    #[error("no session with {asked}: {cause}")]
    Unreachable { asked: SocketAddr, cause: String },
}

/// The calls that an agent makes. Each gives up by itself when the other side does not answer.
pub trait Uplink: Send + Sync + 'static {
    fn open(&self, manager: Manager, hello: Hello) -> BoxFuture<'_, Result<Session, NoSession>>;
    /// False when the manager says that there is no session.
    fn heartbeat(&self, manager: Manager) -> BoxFuture<'_, Result<bool, NoSession>>;
}
