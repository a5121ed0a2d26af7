//! Who leads, as those who act on it need to know it.

use std::time::Duration;

use model::NodeId;
use openraft::ServerState;
use openraft::async_runtime::{Instant, WatchReceiver};
use openraft::type_config::alias::WatchReceiverOf;
use tokio::sync::watch;

use crate::raft::{Metrics, TypeConfig};

/// Who leads the managers, as far as this one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This manager leads: it was elected, its state holds all that was acknowledged before, and a quorum has heard it
    /// lately. It may have been deposed all the same; what it proposes then is refused.
    Leader { term: u64 },
    /// Another one does, or nobody that is known.
    Follower { leader: Option<NodeId> },
}

impl Leadership {
    pub fn is_leader(self) -> bool {
        matches!(self, Self::Leader { .. })
    }
}

/// Reads leadership from openraft's metrics; `lease` is how long the last word of a quorum counts.
pub(crate) fn leadership(metrics: &Metrics, lease: Duration) -> Leadership {
    if metrics.state != ServerState::Leader {
        return Leadership::Follower { leader: other_leader(metrics) };
    }
    // Its first own entry comes after everything that earlier leaders acknowledged.
    let applied = metrics.last_applied.map(|last| (last.leader_id.term, last.leader_id.node_id));
    let caught_up = applied == Some((metrics.current_term, metrics.id));
    if caught_up && heard(metrics, lease) {
        Leadership::Leader { term: metrics.current_term }
    } else {
        Leadership::Follower { leader: None }
    }
}

fn other_leader(metrics: &Metrics) -> Option<NodeId> {
    metrics.current_leader.filter(|leader| *leader != metrics.id).map(NodeId)
}

fn heard(metrics: &Metrics, lease: Duration) -> bool {
    let alone = metrics.membership_config.voter_ids().eq([metrics.id]);
    alone || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < lease)
}

/// Keeps `published` up to date until openraft is gone.
pub(crate) async fn follow(
    mut metrics: WatchReceiverOf<TypeConfig, Metrics>,
    published: watch::Sender<Leadership>,
    lease: Duration,
) {
    loop {
        // Taken out before anything is awaited: holding the borrow would stop openraft's core.
        let now = leadership(&metrics.borrow_and_update(), lease);
        published.send_if_modified(|before| std::mem::replace(before, now) != now);
        let changed = if now.is_leader() {
            // A leader that hears nobody gets no news either, so it has to look again by itself.
            tokio::time::timeout(lease / 4, metrics.changed()).await.unwrap_or(Ok(()))
        } else {
            metrics.changed().await
        };
        if changed.is_err() {
            published.send_replace(Leadership::Follower { leader: None });
            return;
        }
    }
}
