//! The dispatcher: one session with every agent, assignments out, reports in, and who is alive.
//!
//! [`run`] owns all of it while this manager leads. Others hold a [`Dispatcher`], which only puts messages into its
//! inbox. What is sent to an agent is computed from `State` by [`assignments`], so a session that is opened anew, with
//! this leader or the next, is told the same.

pub mod assignments;
mod grpc;
mod liveness;
mod reports;
mod sessions;

use model::NodeId;
use tokio::sync::{mpsc, oneshot};
use wire::proto::agent::{FromAgent, FromManager, Hello, Open};

pub use grpc::Grpc;
pub(crate) use sessions::run;

/// Messages that wait for the dispatcher. Senders wait when it is full, which slows agents down and nothing else.
const INBOX: usize = 1024;

/// Messages that wait for one agent. An agent that does not keep up loses its session and is told everything anew.
const OUTBOX: usize = 256;

/// Tells one session of a node from those before it, in this term and in others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(u64);

/// An agent's session, as the caller that carries its messages holds it.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub outgoing: mpsc::Receiver<FromManager>,
}

/// This manager has no session with the node: it does not lead, or the session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no session with node {0} here")]
pub struct NoSession(pub NodeId);

#[derive(Debug)]
enum Message {
    Open { node: NodeId, hello: Hello, opened: oneshot::Sender<Session> },
    FromAgent { node: NodeId, session: SessionId, message: FromAgent },
    Closed { node: NodeId, session: SessionId },
    Heartbeat { node: NodeId, known: oneshot::Sender<bool> },
    Tell { node: NodeId, open: Open, told: oneshot::Sender<bool> },
    Connected { nodes: oneshot::Sender<Vec<NodeId>> },
}

/// A cheap handle on the dispatcher.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    inbox: mpsc::Sender<Message>,
}

/// The dispatcher's end of its handles. It outlives the terms in which this manager leads, and so does what is queued in
/// it; sessions are counted here so that none of it is taken for another session's.
#[derive(Debug)]
pub struct Inbox {
    messages: mpsc::Receiver<Message>,
    last_session: u64,
}

pub(crate) fn channel() -> (Dispatcher, Inbox) {
    let (inbox, messages) = mpsc::channel(INBOX);
    (Dispatcher { inbox }, Inbox { messages, last_session: 0 })
}

impl Dispatcher {
    /// Opens a session and ends the one that the node had. Fails when this manager does not lead.
    pub async fn open(&self, node: NodeId, hello: Hello) -> Result<Session, NoSession> {
        self.ask(node, |opened| Message::Open { node, hello, opened }).await
    }

    /// Takes one message of a session.
    pub async fn receive(&self, node: NodeId, session: SessionId, message: FromAgent) {
        // A dispatcher that is gone has ended every session already.
        let _ = self.inbox.send(Message::FromAgent { node, session, message }).await;
    }

    /// The session's connection has ended. The node is down only once its heartbeats are missed.
    pub async fn close(&self, node: NodeId, session: SessionId) {
        let _ = self.inbox.send(Message::Closed { node, session }).await;
    }

    pub async fn heartbeat(&self, node: NodeId) -> Result<(), NoSession> {
        match self.ask(node, |known| Message::Heartbeat { node, known }).await? {
            true => Ok(()),
            false => Err(NoSession(node)),
        }
    }

    /// Asks an agent to open a stream.
    pub(crate) async fn tell(&self, node: NodeId, open: Open) -> Result<(), NoSession> {
        match self.ask(node, |told| Message::Tell { node, open, told }).await? {
            true => Ok(()),
            false => Err(NoSession(node)),
        }
    }

    /// The nodes that have a session.
    pub(crate) async fn connected(&self) -> Vec<NodeId> {
        let anyone = NodeId::default();
        self.ask(anyone, |nodes| Message::Connected { nodes }).await.unwrap_or_default()
    }

    async fn ask<T>(
        &self,
        node: NodeId,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, NoSession> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(message(reply)).await.map_err(|_| NoSession(node))?;
        answer.await.map_err(|_| NoSession(node))
    }
}

impl Inbox {
    /// While this manager does not lead: drops what arrives, which tells each sender that there is no session here.
    pub(crate) async fn refuse(&mut self) {
        if self.messages.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
