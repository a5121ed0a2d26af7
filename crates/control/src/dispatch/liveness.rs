//! Who is alive: deadlines that heartbeats push back.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Liveness, NodeId};
use state::State;
use tokio::time::Instant;

/// How often an agent sends a heartbeat.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);

/// Four missed heartbeats: long enough for a busy machine's hiccup, short enough that replacements run within three
/// seconds of a loss.
const GRACE: Duration = INTERVAL.saturating_mul(4);

/// When each node that was last seen alive is down unless it is heard of before.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeMap<NodeId, Instant>);

impl Deadlines {
    /// A new leader gives every node that was ready a full grace.
    pub(super) fn afresh(state: &State, now: Instant) -> Self {
        let ready = state.nodes().filter(|(_, node)| node.liveness == Liveness::Ready);
        Self(ready.map(|(id, _)| (id, now + GRACE)).collect())
    }

    pub(super) fn heard(&mut self, node: NodeId, now: Instant) {
        self.0.insert(node, now + GRACE);
    }

    /// Counts a node as missed from `now` on.
    pub(super) fn passed(&mut self, node: NodeId, now: Instant) {
        self.0.insert(node, now);
    }

    /// The nodes whose deadline has passed; each is told once.
    pub(super) fn missed(&mut self, now: Instant) -> Vec<NodeId> {
        let missed: Vec<NodeId> =
            self.0.iter().filter(|(_, at)| **at <= now).map(|(node, _)| *node).collect();
        for node in &missed {
            self.0.remove(node);
        }
        missed
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}
