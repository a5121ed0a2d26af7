//! How simulated agents reach managers: the dispatcher's own methods, at the other end of the network.

use std::net::SocketAddr;
use std::time::Duration;

use agent::uplink::{Manager, NoSession, Session, Uplink};
use control::dispatch;
use futures::future::BoxFuture;
use model::NodeId;
use store::Leadership;
use wire::proto::agent::Hello;

use crate::net::session::Connection;
use crate::net::{Lost, Net, Port, node_at};

/// How long an agent waits for a session. Opening one takes a commit and a quorum's word.
const OPEN: Duration = Duration::from_secs(5);
/// How long it waits for a heartbeat's answer.
const BEAT: Duration = Duration::from_secs(2);

/// One agent's way to the managers.
#[derive(Clone, Debug)]
pub(crate) struct AgentWire {
    pub(crate) net: Net,
    pub(crate) node: NodeId,
}

/// What a manager answers.
enum Answer<T> {
    Done(T),
    /// It does not lead; the address of who does.
    Elsewhere(Option<SocketAddr>),
    Failed(dispatch::NoSession),
}

/// As the gRPC service decides it: refuses unless this manager leads, and says who does.
fn leader_elsewhere(port: &Port) -> Option<Option<SocketAddr>> {
    let leader = match *port.store.leadership().borrow() {
        Leadership::Leader { .. } => return None,
        Leadership::Follower { leader } => leader,
    };
    let state = port.store.state();
    Some(leader.and_then(|leader| state.node(leader)).map(|node| node.address))
}

fn unreachable(asked: SocketAddr, lost: Lost) -> NoSession {
    let cause = match lost {
        Lost::Silence => "no answer",
        Lost::Refused => "connection refused",
    };
    NoSession::Unreachable { asked, cause: cause.to_owned() }
}

impl AgentWire {
    fn target(asked: SocketAddr) -> Result<NodeId, NoSession> {
        node_at(asked).ok_or_else(|| NoSession::Unreachable { asked, cause: "no such address".to_owned() })
    }
}

impl Uplink for AgentWire {
    fn open(&self, manager: Manager, hello: Hello) -> BoxFuture<'_, Result<Session, NoSession>> {
        Box::pin(async move {
            let (asked, node) = (manager.address, self.node);
            let target = Self::target(asked)?;
            let connection = Connection::new(&self.net, node, target);
            let opened = self.net.ask(node, target, OPEN, move |port| {
                Box::pin(async move {
                    if let Some(leader) = leader_elsewhere(&port) {
                        return Answer::Elsewhere(leader);
                    }
                    match port.dispatcher.open(node, hello).await {
                        Ok(session) => Answer::Done((port.dispatcher, session)),
                        Err(none) => Answer::Failed(none),
                    }
                })
            });
            match opened.await {
                Ok(Answer::Done((dispatcher, session))) => Ok(connection.carry(dispatcher, session)),
                Ok(Answer::Elsewhere(leader)) => Err(NoSession::NotLeader { asked, leader }),
                Ok(Answer::Failed(none)) => Err(NoSession::Unreachable { asked, cause: none.to_string() }),
                Err(lost) => Err(unreachable(asked, lost)),
            }
        })
    }

    fn heartbeat(&self, manager: Manager) -> BoxFuture<'_, Result<bool, NoSession>> {
        Box::pin(async move {
            let (asked, node) = (manager.address, self.node);
            let target = Self::target(asked)?;
            let beaten = self.net.ask(node, target, BEAT, move |port| {
                Box::pin(async move {
                    match leader_elsewhere(&port) {
                        Some(leader) => Answer::Elsewhere(leader),
                        None => Answer::Done(port.dispatcher.heartbeat(node).await.is_ok()),
                    }
                })
            });
            match beaten.await {
                Ok(Answer::Done(known)) => Ok(known),
                Ok(Answer::Elsewhere(leader)) => Err(NoSession::NotLeader { asked, leader }),
                Ok(Answer::Failed(none)) => Err(NoSession::Unreachable { asked, cause: none.to_string() }),
                Err(lost) => Err(unreachable(asked, lost)),
            }
        })
    }
}
