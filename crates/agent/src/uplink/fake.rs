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
    fn open(&self, _: Manager, _: Hello) -> BoxFuture<'_, Result<Session, NoSession>> {
        let (outgoing, sent) = mpsc::channel(64);
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
        let incoming = stream::iter(self.says.clone()).chain(stream::pending()).boxed();
        ready(Ok(Session { outgoing, incoming })).boxed()
    }

    fn heartbeat(&self, manager: Manager) -> BoxFuture<'_, Result<bool, NoSession>> {
        if self.silent == Some(manager) { pending().boxed() } else { ready(Ok(true)).boxed() }
    }
}
