//! An agent's session with a manager: messages in both directions, in order, until the connection breaks.

use std::time::Duration;

use agent::uplink;
use control::dispatch::{self, Dispatcher, SessionId};
use futures::StreamExt as _;
use futures::stream;
use model::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use wire::proto::agent::{FromAgent, FromManager};

use crate::net::Net;

/// How long a connection carries nothing before it is given up. Shorter than a real TCP connection's
/// minutes: gantry's connections ask for signs of life.
const STALL: Duration = Duration::from_secs(4);
/// How often what was lost is sent again.
const AGAIN: Duration = Duration::from_millis(100);

/// A connection between an agent and a manager, as it was when it was made.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    net: Net,
    agent: NodeId,
    manager: NodeId,
    epochs: (u64, u64),
}

/// The connection is of no use any more.
#[derive(Debug)]
struct Broken;

impl Connection {
    pub(crate) fn new(net: &Net, agent: NodeId, manager: NodeId) -> Self {
        let epochs = (net.epoch(agent), net.epoch(manager));
        Self { net: net.clone(), agent, manager, epochs }
    }

    /// Carries a session that the dispatcher has opened; returns the agent's end of it.
    pub(crate) fn carry(self, dispatcher: Dispatcher, session: dispatch::Session) -> uplink::Session {
        let (outgoing, from_agent) = mpsc::channel(64);
        let (to_agent, incoming) = mpsc::channel(256);
        let launcher = self.net.clone();
        launcher.launch(async move {
            let (net, node) = (&self.net, self.agent);
            let dispatch::Session { id, outgoing: from_manager } = session;
            net.shared.trace.line(format_args!("{node} has a session with {}", self.manager));
            net.shared.trace.count("session");
            tokio::select! {
                biased;
                () = net.until_cut(self.agent, self.epochs.0) => {}
                () = net.until_cut(self.manager, self.epochs.1) => {}
                () = self.up(&dispatcher, id, from_agent) => {}
                () = self.down(from_manager, &to_agent) => {}
            }
            dispatcher.close(node, id).await;
            if !net.links().powered.contains(&self.manager) {
                // A machine that lost its power does not say goodbye; the agent finds out by its heartbeats.
                to_agent.closed().await;
            }
            net.shared.trace.line(format_args!("{node} has no session with {} any more", self.manager));
        });
        let incoming = stream::unfold(incoming, |mut incoming| async move {
            let message = incoming.recv().await?;
            Some((message, incoming))
        });
        uplink::Session { outgoing, incoming: incoming.boxed() }
    }

    async fn up(&self, dispatcher: &Dispatcher, id: SessionId, mut messages: mpsc::Receiver<FromAgent>) {
        while let Some(message) = messages.recv().await {
            if self.one(self.agent, self.manager).await.is_err() {
                return;
            }
            dispatcher.receive(self.agent, id, message).await;
        }
    }

    async fn down(&self, mut messages: mpsc::Receiver<FromManager>, to_agent: &mpsc::Sender<FromManager>) {
        while let Some(message) = messages.recv().await {
            if self.one(self.manager, self.agent).await.is_err() || to_agent.send(message).await.is_err() {
                return;
            }
        }
    }

    /// Carries one message. What is lost is sent again, as TCP does, so a loss is a delay.
    async fn one(&self, from: NodeId, to: NodeId) -> Result<(), Broken> {
        let deadline = Instant::now() + STALL;
        while self.net.pass(from, to).await.is_none() {
            if Instant::now() > deadline {
                return Err(Broken);
            }
            sleep(AGAIN).await;
        }
        Ok(())
    }
}
