//! With whom: finds the manager that leads, keeps one session with it, and shows that this node is alive.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use wire::proto::agent::Hello;

use crate::uplink::{Manager, NoSession, Session, Uplink};

/// How often the node shows that it is alive. Managers count a node as down after four that are missed.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A heartbeat that takes longer is taken for missed, so that one slow answer does not hold up the next.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The wait after all known managers have refused, or after one has said what this node cannot follow: doubling from the
/// first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Finds sessions, one after the other.
pub(crate) struct Seeker<U> {
    uplink: Arc<U>,
    managers: BTreeSet<Manager>,
    /// Whom to ask first: the last leader heard of.
    favourite: Option<SocketAddr>,
    /// Whom to ask last: the manager whose session has just ended may be gone, and would only be waited for.
    lost: Option<SocketAddr>,
    wait: Duration,
    /// How long to keep away from everyone first: not at all, unless the last session ended with a refusal.
    rest: Duration,
}

impl<U: Uplink> Seeker<U> {
    pub(crate) fn new(uplink: Arc<U>, managers: BTreeSet<Manager>) -> Self {
        Self { uplink, managers, favourite: None, lost: None, wait: FIRST_WAIT, rest: Duration::ZERO }
    }

    pub(crate) fn know(&mut self, managers: BTreeSet<Manager>) {
        // An empty list is no news: without a manager this node could never be told otherwise.
        if !managers.is_empty() {
            self.managers = managers;
        }
    }

    /// The session with this manager has ended.
    pub(crate) fn lost(&mut self, manager: Manager) {
        self.lost = Some(manager.address);
        self.favourite = None;
    }

    /// What was said in the last session could be followed.
    pub(crate) fn followed(&mut self) {
        self.rest = Duration::ZERO;
    }

    /// What was said in the last session could not be followed, and will be said again in the next: that takes a commit
    /// and a round with the quorum each time.
    pub(crate) fn refused(&mut self) {
        self.rest = (self.rest * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
    }

    /// Asks managers until one opens a session.
    pub(crate) async fn seek(&mut self, hello: &Hello) -> (Manager, Session) {
        if !self.rest.is_zero() {
            tokio::time::sleep(self.rest).await;
        }
        loop {
            let mut order: Vec<Manager> = self.managers.iter().copied().collect();
            order.sort_by_key(|manager| {
                (Some(manager.address) == self.lost, Some(manager.address) != self.favourite)
            });
            for manager in order {
                let asked = self.ask(manager, hello).await;
                if let Some(found) = asked {
                    self.wait = FIRST_WAIT;
                    return found;
                }
            }
            tokio::time::sleep(self.wait).await;
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Asks one manager, and whom it names.
    async fn ask(&mut self, manager: Manager, hello: &Hello) -> Option<(Manager, Session)> {
        let leader = match self.uplink.open(manager, hello.clone()).await {
            Ok(session) => return Some((manager, session)),
            Err(NoSession::NotLeader { leader, .. }) => leader?,
            Err(error @ NoSession::Unreachable { .. }) => {
                tracing::debug!(%error, "no session");
                return None;
            }
        };
        let known = self.managers.iter().copied().find(|known| known.address == leader);
        let leader = known.unwrap_or(Manager { node: None, address: leader });
        if leader == manager {
            return None;
        }
        match self.uplink.open(leader, hello.clone()).await {
            Ok(session) => {
                self.favourite = Some(leader.address);
                Some((leader, session))
            }
            Err(error) => {
                tracing::debug!(%error, "no session");
                None
            }
        }
    }
}

/// Shows that this node is alive, apart from everything else that it does.
pub(crate) async fn beat<U: Uplink>(
    uplink: Arc<U>,
    mut with: watch::Receiver<Option<Manager>>,
    lost: watch::Sender<u64>,
) {
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(manager) = *with.borrow_and_update() else {
            if with.changed().await.is_err() {
                return;
            }
            continue;
        };
        let beaten = tokio::select! {
            biased;
            // That a manager before this one is silent says nothing of the session that there is now.
            changed = with.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            beaten = tokio::time::timeout(PATIENCE, uplink.heartbeat(manager)) => beaten,
        };
        match beaten {
            Ok(Ok(true)) => {}
            // It is reached and knows of no session: the one that this node believes in has ended.
            Ok(Ok(false) | Err(NoSession::NotLeader { .. })) => lost.send_modify(|count| *count += 1),
            Ok(Err(error @ NoSession::Unreachable { .. })) => {
                tracing::debug!(%error, "missed a heartbeat");
                lost.send_modify(|count| *count += 1);
            }
            Err(_) => {
                tracing::debug!(address = %manager.address, "a heartbeat was not answered in time");
                lost.send_modify(|count| *count += 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::fake::FakeUplink;

    fn manager(last: u8) -> Manager {
        Manager { node: None, address: SocketAddr::from(([192, 0, 2, last], 7000)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_makes_for_a_wait_that_doubles_until_something_can_be_followed() {
        let mut seeker = Seeker::new(Arc::new(FakeUplink::default()), BTreeSet::from([manager(1)]));
        let mut waits = Vec::new();
        for refused in [false, true, true, true, true, true, true, false, true] {
            if refused {
                seeker.refused()
            } else {
                seeker.followed()
            }
            let began = tokio::time::Instant::now();
            seeker.seek(&Hello::default()).await;
            // Tokio's clock may be a millisecond late.
            waits.push(began.elapsed().as_millis() / 10 * 10);
        }
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1000, 0, 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_manager_that_is_silent_ends_no_session_with_another() {
        let uplink = Arc::new(FakeUplink { silent: Some(manager(1)), ..FakeUplink::default() });
        let (with, told) = watch::channel(Some(manager(1)));
        let (lost, losses) = watch::channel(0);
        let script = async {
            // In the middle of a heartbeat that nobody answers.
            tokio::time::sleep(PATIENCE / 2).await;
            with.send_replace(Some(manager(2)));
            tokio::time::sleep(PATIENCE * 4).await;
            assert_eq!(*losses.borrow(), 0);
            with.send_replace(Some(manager(1)));
            tokio::time::sleep(PATIENCE * 3 / 2).await;
            assert_eq!(*losses.borrow(), 1, "but its own");
        };
        tokio::select! {
            biased;
            () = beat(uplink, told, lost) => panic!("a heart beats as long as its agent lives"),
            () = script => {}
        }
    }
}
