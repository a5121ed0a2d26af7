//! Managers over gRPC, each connection with this node's certificate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use identity::{Connector, Expect};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::proto::agent::dispatcher_client::DispatcherClient;
use wire::proto::agent::{Beat, FromAgent, Hello, from_agent};

use crate::uplink::{Manager, NoSession, Session, Uplink};

/// Metadata that names the leader's address to an agent that called another manager.
const LEADER: &str = "gantry-leader";
/// Messages that wait in either direction.
const MESSAGES: usize = 64;
/// How long a manager has to open a session: a commit and a round with its quorum.
const OPEN: Duration = Duration::from_secs(2);
/// An assignment of thousands of tasks is one message.
const MESSAGE: usize = 256 << 20;

/// What a channel is for: sessions and heartbeats have connections of their own, so that no heartbeat queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Session,
    Heartbeat,
}

#[derive(Debug)]
pub struct Grpc {
    connector: Connector,
    // A std mutex: it is held for one map operation and never across an await.
    channels: Mutex<BTreeMap<(SocketAddr, Use), Channel>>,
}

impl Grpc {
    pub fn new(connector: Connector) -> Self {
        Self { connector, channels: Mutex::default() }
    }

    fn client(&self, manager: Manager, purpose: Use) -> DispatcherClient<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let expect = manager.node.map_or(Expect::AnyNode, Expect::Node);
        let connect = || self.connector.connect_lazily(manager.address, expect);
        let channel = channels.entry((manager.address, purpose)).or_insert_with(connect).clone();
        DispatcherClient::new(channel).max_decoding_message_size(MESSAGE)
    }

    /// Reads a refusal, and drops a connection that failed so that the next call makes a new one.
    fn failed(&self, manager: Manager, purpose: Use, status: &Status) -> NoSession {
        let asked = manager.address;
        if status.code() == Code::FailedPrecondition {
            let leader = status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok());
            return NoSession::NotLeader { asked, leader: leader.and_then(|leader| leader.parse().ok()) };
        }
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&(asked, purpose));
        NoSession::Unreachable { asked, cause: status.message().to_owned() }
    }
}

impl Uplink for Grpc {
    fn open(&self, manager: Manager, hello: Hello) -> BoxFuture<'_, Result<Session, NoSession>> {
        async move {
            let (outgoing, messages) = mpsc::channel(MESSAGES);
            let hello = FromAgent { kind: Some(from_agent::Kind::Hello(hello)) };
            outgoing.try_send(hello).expect("a new channel has room for one message");
            let mut client = self.client(manager, Use::Session);
            let call = client.session(ReceiverStream::new(messages));
            let late = |_| Status::deadline_exceeded("it did not answer in time");
            let answered = tokio::time::timeout(OPEN, call).await.map_err(late).and_then(|answered| answered);
            let answers =
                answered.map_err(|status| self.failed(manager, Use::Session, &status))?.into_inner();
            // A call that breaks ends the session, for whatever reason it broke.
            let incoming = answers.take_while(|message| std::future::ready(message.is_ok()));
            let incoming = incoming.filter_map(|message| std::future::ready(message.ok()));
            Ok(Session { outgoing, incoming: incoming.boxed() })
        }
        .boxed()
    }

    fn heartbeat(&self, manager: Manager) -> BoxFuture<'_, Result<bool, NoSession>> {
        async move {
            match self.client(manager, Use::Heartbeat).heartbeat(Beat {}).await {
                Ok(_) => Ok(true),
                Err(status) if status.code() == Code::NotFound => Ok(false),
                Err(status) => Err(self.failed(manager, Use::Heartbeat, &status)),
            }
        }
        .boxed()
    }
}
