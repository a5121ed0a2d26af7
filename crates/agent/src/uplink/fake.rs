//! Managers without a network, for tests: every session says the same.

use std::sync::{Mutex, PoisonError};

use futures::future::{BoxFuture, pending, ready};
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use wire::proto::agent::{FromAgent, FromManager, Hello};

use crate::uplink::{Manager, NoSession, Session, Uplink};

#[derive(Debug, Default)]
pub(crate) struct FakeUplink {
    /// What a session says once it is open.
    pub(crate) says: Vec<FromManager>,
    /// So many sessions are opened, each of which ends once all is said, and then nobody is in reach. `None` is no end.
    pub(crate) most: Option<usize>,
    /// Who answers no heartbeat.
    pub(crate) silent: Option<Manager>,
    /// What the agent sends in each session, read by nobody.
    pub(crate) sent: Mutex<Vec<mpsc::Receiver<FromAgent>>>,
}

impl FakeUplink {
    /// How many sessions have been opened.
    pub(crate) fn sessions(&self) -> usize {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Uplink for FakeUplink {
    fn open(&self, manager: Manager, _: Hello) -> BoxFuture<'_, Result<Session, NoSession>> {
        if self.most.is_some_and(|most| self.sessions() >= most) {
            let cause = "nobody is there".to_owned();
            return ready(Err(NoSession::Unreachable { asked: manager.address, cause })).boxed();
        }
        let (outgoing, sent) = mpsc::channel(64);
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
        let says = stream::iter(self.says.clone());
        let incoming = if self.most.is_some() { says.boxed() } else { says.chain(stream::pending()).boxed() };
        ready(Ok(Session { outgoing, incoming })).boxed()
    }

    fn heartbeat(&self, manager: Manager) -> BoxFuture<'_, Result<bool, NoSession>> {
        if self.silent == Some(manager) { pending().boxed() } else { ready(Ok(true)).boxed() }
    }
}
