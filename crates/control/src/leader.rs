//! Who runs what: while this manager leads, the loops; always, the handles through which others reach it.

use model::NodeId;
use store::{Leadership, Store};
use tokio::sync::watch;
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

    /// Runs the leader's loops whenever this manager leads. Returns when the store stops, or one of the loops panicked.
    pub async fn run(self) {
        let Self { parts, dispatcher: _, mut inbox, streams: _ } = self;
        let mut leadership = parts.store.leadership();
        loop {
            let now = *leadership.borrow_and_update();
            if let Leadership::Leader { term } = now {
                tracing::info!(node = %parts.node, term, "leading");
                let mut loops = JoinSet::new();
                loops.spawn(reconcile::run(parts.store.clone(), parts.clock.clone()));
                loops.spawn(voters::run(parts.store.clone()));
                // The dispatcher's inbox outlives a term; what was queued in another is refused by session number, of
                // which the inbox keeps count.
                let dispatch = dispatch::run(&parts, &mut inbox);
                tokio::select! {
                    biased;
                    changed = until_over(term, &mut leadership) => if changed.is_err() { return },
                    () = dispatch => {}
                    // A leader that plans nothing is worse than none: the daemon ends, and another manager leads.
                    Some(Err(error)) = loops.join_next() => {
                        return tracing::error!(%error, "one of the leader's loops failed");
                    }
                }
                // Dropping the set ends the reconcile loop with the term.
                drop(loops);
                tracing::info!(node = %parts.node, term, "no longer leading");
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

/// Returns when this manager does not lead in `term` any more. It may lead in the next one by then, without anyone having
/// seen it follow in between.
async fn until_over(
    term: u64,
    leadership: &mut watch::Receiver<Leadership>,
) -> Result<(), watch::error::RecvError> {
    leadership.wait_for(|now| *now != Leadership::Leader { term }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_term_is_over_also_when_the_next_one_is_led_at_once() {
        let leads = |term| Leadership::Leader { term };
        let (published, mut leadership) = watch::channel(leads(3));
        assert!(until_over(3, &mut leadership).now_or_never().is_none());
        published.send_replace(leads(3));
        assert!(until_over(3, &mut leadership).now_or_never().is_none());
        published.send_replace(Leadership::Follower { leader: None });
        published.send_replace(leads(4));
        assert!(until_over(3, &mut leadership).now_or_never().is_some());
        assert!(until_over(4, &mut leadership).now_or_never().is_none());
        published.send_replace(Leadership::Follower { leader: Some(NodeId(2)) });
        assert!(until_over(4, &mut leadership).now_or_never().is_some());
    }
}
