//! Why nothing is being done for a slot that does not have what it should.

use std::fmt;

use model::{Condition, Name, TaskId, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotNote {
    pub slot: u32,
    pub why: Waiting,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// The task before it has not been seen stopped yet.
    ForItsPredecessor(TaskId),
    /// Its tasks keep failing.
    ToTryAgain { at: Timestamp },
    /// It failed as often as the restart policy allows.
    GivenUp,
    /// It did what it was there for.
    Completed,
    /// It is run once, and was begun.
    OnlyOnce,
    /// Another service is not yet as this one needs it.
    ForService { name: Name, condition: Condition },
    /// As many slots of its run are tried as may be at once.
    ForOthers,
    /// Its node is being drained, and no other takes it.
    ForAnotherNode { than: Name },
    /// Its node is being drained, and what is run once is not begun again elsewhere.
    ForItsEnd { on: Name },
    /// It is to be replaced; others are first.
    ItsTurn,
    /// The same, and the rest between two batches is not over.
    Rest { until: Timestamp },
    /// It is ready, and is not believed to stay so before this time.
    Trial { until: Timestamp },
    /// It has an old version, and the canaries have not been promoted.
    Promotion,
    /// It has an old version, and the rollout was paused.
    Paused,
    /// It has an old version, and the rollout failed.
    Failed,
}

impl fmt::Display for SlotNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} {}", self.slot, self.why)
    }
}

/// What is said of the slot, without its number.
impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForItsPredecessor(task) => write!(f, "waits until task {task} has stopped"),
            Self::ToTryAgain { .. } => f.write_str("keeps failing and waits before it is tried again"),
            Self::GivenUp => f.write_str("failed as often as its restart policy allows"),
            Self::Completed => f.write_str("has completed"),
            Self::OnlyOnce => f.write_str("is run only once, and was begun already"),
            Self::ForService { name, condition } => write!(f, "waits until {name} {}", condition.as_str()),
            Self::ForOthers => f.write_str("waits until one of the others is done"),
            Self::ForAnotherNode { than } => write!(f, "stays on {than}, since no other node takes it"),
            Self::ForItsEnd { on } => write!(f, "runs to its end on {on}, since it is run only once"),
            Self::ItsTurn => f.write_str("is to be replaced and waits for its turn"),
            Self::Rest { .. } => f.write_str("is to be replaced and waits until the delay is over"),
            Self::Trial { .. } => f.write_str("is ready and has to stay so for a while"),
            Self::Promotion => f.write_str("has an old version until the canaries are promoted"),
            Self::Paused => f.write_str("has an old version, and the rollout is paused"),
            Self::Failed => f.write_str("has an old version, and the rollout has failed"),
        }
    }
}
