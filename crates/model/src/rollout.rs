//! How a service moves from one version of its tasks to another.

use std::fmt;
use std::time::Duration;

use crate::{SpecVersion, Timestamp};

/// How versions change. Compose's `update_config` and `rollback_config`, and what `x-gantry.rollout` adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdatePolicy {
    /// Slots that are between two tasks at a time; 0 is all at once.
    pub parallelism: u32,
    /// The rest between one batch of slots and the next.
    pub delay: Duration,
    pub order: UpdateOrder,
    /// How long every slot has to have been ready for the rollout to be completed; a failure until then counts against it.
    pub monitor: Duration,
    /// How long a new task has to have been ready before the next slots follow. `None` is no time at all where something
    /// checks it, since ready then means more than started, and [`UpdatePolicy::monitor`] where nothing does.
    pub min_healthy: Option<Duration>,
    /// Thousandths of the slots whose new task may fail.
    pub max_failure_ratio: u16,
    pub failure_action: FailureAction,
    /// How long the rollout may go without another slot done before it counts as failed. [`Duration::MAX`] is for ever.
    pub progress_deadline: Duration,
    /// Slots that get the new version before anybody has promoted it; 0 is no canary.
    pub canaries: u32,
    /// How long the canaries have to have been ready to be promoted without a person. `None` waits for one.
    pub promote_after: Option<Duration>,
}

impl UpdatePolicy {
    pub const MONITOR: Duration = Duration::from_secs(5);
    pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(10 * 60);
}

impl Default for UpdatePolicy {
    /// Compose's.
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            order: UpdateOrder::StopFirst,
            monitor: Self::MONITOR,
            min_healthy: None,
            max_failure_ratio: 0,
            failure_action: FailureAction::Pause,
            progress_deadline: Self::PROGRESS_DEADLINE,
            canaries: 0,
            promote_after: None,
        }
    }
}

/// Which of a slot's two tasks goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpdateOrder {
    /// The old one is seen stopped before the new one is made.
    StopFirst,
    /// The old one serves until the new one does. Where both cannot be on the cluster at once, for a host port that it
    /// names, the rollout is stop-first all the same.
    StartFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureAction {
    Pause,
    Continue,
    /// To the version that last served.
    Rollback,
}

/// The record of the latest move of a service from one version to another. What it does next follows from it, from the
/// service's tasks and from the time, so that a new leader goes on where the old one was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    pub from: SpecVersion,
    pub to: SpecVersion,
    pub cause: Cause,
    /// When it was begun, or resumed after it had failed.
    pub began: Timestamp,
    pub phase: RolloutPhase,
    /// When another slot was last seen done, or the rollout was begun, resumed or promoted: the progress deadline counts from
    /// here.
    pub progressed: Timestamp,
    /// The most slots that have been done at once.
    pub done: u32,
    /// The most slots in which a task of the new version had failed, since it was begun or resumed.
    pub failed: u32,
    /// The canaries have been promoted, by a person or by time; true from the start where there are none.
    pub promoted: bool,
    /// Why it is in its phase, for a person.
    pub reason: Option<String>,
}

/// What a rollout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The service is new: all of its slots begin at once.
    Create,
    Deploy,
    /// Somebody went back to an earlier version.
    Undo,
    /// The same again, in new containers.
    Restart,
    /// Somebody ended the rollout before this one.
    Abort,
    /// The rollout before this one failed, and its policy said so.
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RolloutPhase {
    Running,
    /// By a person. Nothing is replaced until it is resumed or aborted, or another takes its place.
    Paused,
    /// The same, since too much of it failed.
    Failed,
    /// Every slot has the new version and has had it for long enough.
    Completed,
}

impl Rollout {
    /// Whether slots that have another version keep it for now.
    pub fn is_halted(&self) -> bool {
        matches!(self.phase, RolloutPhase::Paused | RolloutPhase::Failed)
    }
}

impl RolloutPhase {
    /// The one word for it that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Deploy => "deploy",
            Self::Undo => "undo",
            Self::Restart => "restart",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
        }
    }

    /// Whether it goes back, for which a service may have another policy.
    pub fn goes_back(self) -> bool {
        matches!(self, Self::Undo | Self::Abort | Self::Rollback)
    }
}

impl fmt::Display for RolloutPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
