//! How a manager takes part.

use std::time::Duration;

use model::{ClusterId, NodeId};
use openraft::SnapshotPolicy;

/// What a [`crate::Store`] is told. [`Config::new`] has the values to run with; simulations and tests change some.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeId,
    pub cluster: ClusterId,
    /// Whether an empty engine may become this node's. Only until it has once: a node whose log is gone must not vote
    /// again as if it never had.
    pub first_start: bool,
    /// Election timeouts are drawn from it. A real node takes it from the operating system, a simulated one from the
    /// simulation's seed; two managers with one seed would keep colliding in elections.
    pub seed: u64,
    /// How often a leader shows that it is there. 100 ms: several may be lost before anyone stands for election.
    pub heartbeat: Duration,
    /// A manager that hears from no leader for between `election.0` and `election.1` asks whether it may become one.
    /// 300 to 600 ms: the cluster writes again within a second of losing its leader, and a fsync that takes 200 ms does
    /// not depose anyone.
    pub election: (Duration, Duration),
    /// How long a follower has to store entries and answer before they are sent again. Longer than a slow fsync.
    pub append_timeout: Duration,
    /// How long one snapshot may take to be sent and installed.
    pub snapshot_timeout: Duration,
    /// A snapshot is made each time that this many entries have been committed, and as many entries are kept behind it,
    /// so that a follower that was away for a while catches up from the log.
    pub snapshot_after: u64,
    /// When a proposal or a read has waited this long for a quorum, its caller hears of it.
    pub commit_timeout: Duration,
    /// How long a manager may take to catch up before it votes.
    pub membership_timeout: Duration,
}

impl Config {
    pub fn new(node: NodeId, cluster: ClusterId, seed: u64) -> Self {
        Self {
            node,
            cluster,
            first_start: true,
            seed,
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(300), Duration::from_millis(600)),
            append_timeout: Duration::from_secs(1),
            snapshot_timeout: Duration::from_secs(60),
            snapshot_after: 5_000,
            commit_timeout: Duration::from_secs(10),
            membership_timeout: Duration::from_secs(60),
        }
    }

    /// How long a leader may act on the last word of a quorum. Twice the longest election timeout: by then another
    /// leader may have been elected.
    pub(crate) fn lease(&self) -> Duration {
        self.election.1 * 2
    }

    /// As openraft wants it. Every setting that differs from openraft's own is argued for in `DESIGN.md`.
    pub(crate) fn raft(&self) -> Result<openraft::Config, openraft::ConfigError> {
        let election = (millis(self.election.0), millis(self.election.1));
        openraft::Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: election.0,
            election_timeout_max: election.1,
            enable_pre_vote: Some(true),
            // A leader that restarts has to be elected again: its state may be behind what it acknowledged.
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            // Lets the others elect a leader that can hear them when this one can only speak.
            quorum_loss_probe_interval: Some(4 * election.1),
            install_snapshot_timeout: millis(self.snapshot_timeout),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_after),
            max_in_snapshot_log_to_keep: self.snapshot_after,
            purge_batch_size: (self.snapshot_after / 8).max(1),
            replication_lag_threshold: self.snapshot_after.saturating_mul(2),
            backoff: "50ms 100ms 200ms ...500ms".to_owned(),
            ..openraft::Config::default()
        }
        .validate()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
