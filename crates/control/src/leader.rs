//! Who runs what: while this manager leads, the loops; always, the handles through which others reach it.

use model::NodeId;
use store::{Leadership, Store};
use tokio::task::JoinSet;

use crate::WallClock;
use crate::api::Api;
use crate::dispatch::{self, Dispatcher};
use crate::reconcile;
use crate::streams::Streams;
use crate::voters;

/// What a manager is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub node: NodeId,
    pub store: Store,
    pub clock: WallClock,
    /// gantry's version, for `version`.
    pub version: &'static str,
}

/// A manager. [`Control::run`] is its life; the handles may be cloned out before.
#[derive(Debug)]
pub struct Control {
    parts: Parts,
    dispatcher: Dispatcher,
    inbox: dispatch::Inbox,
    streams: Streams,
}

impl Control {
    pub fn new(parts: Parts) -> Self {
        let (dispatcher, inbox) = dispatch::channel();
        Self { parts, dispatcher, inbox, streams: Streams::default() }
    }

    pub fn dispatcher(&self) -> Dispatcher {
        self.dispatcher.clone()
    }

    pub fn api(&self) -> Api {
        Api::new(self.parts.clone(), self.dispatcher.clone(), self.streams.clone())
    }

    /// The service that agents call.
    pub fn dispatcher_service(&self) -> dispatch::Grpc {
        dispatch::Grpc::new(self.parts.clone(), self.dispatcher.clone(), self.streams.clone())
    }

    /// Runs the leader's loops whenever this manager leads. Returns when the store stops.
    pub async fn run(self) {
        let Self { parts, dispatcher: _, mut inbox, streams: _ } = self;
        let mut leadership = parts.store.leadership();
        loop {
            let leads = matches!(*leadership.borrow_and_update(), Leadership::Leader { .. });
            if leads {
                tracing::info!(node = %parts.node, "leading");
                let mut loops = JoinSet::new();
                loops.spawn(reconcile::run(parts.store.clone(), parts.clock.clone()));
                loops.spawn(voters::run(parts.store.clone()));
                // The dispatcher's inbox outlives a term; what was queued in another is refused by session number.
                let dispatch = dispatch::run(&parts, &mut inbox);
                tokio::select! {
                    biased;
                    changed = until_deposed(&mut leadership) => if changed.is_err() { return },
                    () = dispatch => {}
                }
                // Dropping the set ends the reconcile loop with the term.
                drop(loops);
                tracing::info!(node = %parts.node, "no longer leading");
            } else {
                tokio::select! {
                    biased;
                    changed = leadership.changed() => if changed.is_err() { return },
                    () = inbox.refuse() => {}
                }
            }
        }
    }
}

async fn until_deposed(
    leadership: &mut tokio::sync::watch::Receiver<Leadership>,
) -> Result<(), tokio::sync::watch::error::RecvError> {
    loop {
        leadership.changed().await?;
        if !matches!(*leadership.borrow_and_update(), Leadership::Leader { .. }) {
            return Ok(());
        }
    }
}
