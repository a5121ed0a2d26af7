//! A task's life. Three parties write it, each its own field: controllers the desired state and the verdict, the
//! scheduler the placement, the agent the status.

use std::cmp::Ordering;
use std::fmt;
use std::net::Ipv4Addr;

use crate::{NodeId, Protocol, SpecVersion, Timestamp};

/// One attempt to fill a slot on one node; its id is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which version of the service's task template it is made from.
    pub version: SpecVersion,
    /// The number of its run, where its service is a job; 0 where it is not.
    pub run: u32,
    pub created: Timestamp,
    pub desired: Desired,
    /// The node that a task before it failed on; placed elsewhere if that is possible.
    pub avoid: Option<NodeId>,
    /// The operator wants it elsewhere: it is made anew on another node as soon as its service's pace allows it.
    pub leaves: bool,
    /// Set once by the scheduler and never changed.
    pub placement: Option<Placement>,
    /// The agent's word. `None` until it has spoken.
    pub status: Option<TaskStatus>,
    /// Control's last word. `None` while the slot counts on this task.
    pub verdict: Option<TaskVerdict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub node: NodeId,
    pub at: Timestamp,
    pub address: Ipv4Addr,
    pub ports: Vec<PublishedPort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    pub host: u16,
    pub target: u16,
    pub protocol: Protocol,
}

/// What controllers want of a task. It only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Desired {
    Running,
    /// Running until another task of its slot serves in its place; while there is none, for good.
    Yielding,
    /// Stopped; what it left (logs, exit) stays until its row is dropped.
    Stopped,
    /// Stopped, and nothing left on the node.
    Removed,
}

/// What the agent last said of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// Counts container runs from 1.
    pub attempt: u32,
    pub phase: Phase,
    /// Counts changes within a phase.
    pub seq: u32,
    pub ready: bool,
    pub at: Timestamp,
    /// How the latest finished attempt ended.
    pub exit: Option<Exit>,
    /// Set with the last report of all: the agent will not start this task again.
    pub ended: Option<Ended>,
    /// Why it is where it is, for a person.
    pub reason: Option<String>,
    /// What was asked for and the node does not do, of the current attempt: one sentence each.
    pub warnings: Vec<String>,
}

/// What an attempt is doing, in the order in which it happens; phases may be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Preparing,
    Created,
    Starting,
    Running,
    Stopping,
    Exited,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(u8),
    Signal {
        signal: u8,
        /// The kernel killed it for its memory limit.
        oom: bool,
    },
    /// There is no one left to ask: the machine went down, or the shim was killed.
    Unknown,
    /// It never ran; the reason is in the status.
    NotStarted,
}

impl Exit {
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

/// Why the agent is done with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It ended by itself and its restart policy leaves it there.
    Completed,
    /// It failed as often as its restart policy allows.
    GaveUp,
    /// It kept failing here; another node may do better.
    Failing,
}

/// Control's last word on a task. No later report undoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskVerdict {
    Ended,
    /// Its node is gone for good.
    Lost,
}

/// The order in which reports supersede one another, whatever order they arrive in.
pub type ObservedOrder = (bool, u32, Phase, u32);

impl TaskStatus {
    pub fn order(&self) -> ObservedOrder {
        (self.ended.is_some(), self.attempt, self.phase, self.seq)
    }

    /// Whether this says more than `other` does.
    pub fn supersedes(&self, other: &Self) -> bool {
        self.order().cmp(&other.order()) == Ordering::Greater
    }
}

impl Task {
    /// Whether its slot counts on it.
    pub fn is_live(&self) -> bool {
        self.verdict.is_none()
    }

    pub fn ended(&self) -> Option<Ended> {
        self.status.as_ref().and_then(|status| status.ended)
    }

    /// Whether it did what it was there for: it ended by itself, and well.
    pub fn succeeded(&self) -> bool {
        let exit = self.status.as_ref().and_then(|status| status.exit);
        self.ended() == Some(Ended::Completed) && exit.is_some_and(Exit::success)
    }

    /// The node on which it occupies its address, ports and share of the capacity: from its placement until it is seen
    /// stopped. Being told to stop frees nothing, and neither does the loss of its node.
    pub fn occupies(&self) -> Option<&Placement> {
        self.placement.as_ref().filter(|_| self.ended().is_none())
    }

    pub fn is_running(&self) -> bool {
        self.status.as_ref().is_some_and(|s| s.phase == Phase::Running && s.ended.is_none())
    }

    pub fn is_ready(&self) -> bool {
        self.is_running() && self.status.as_ref().is_some_and(|s| s.ready)
    }

    /// The one word for it that users see.
    pub fn shown(&self, node_is_down: bool) -> Shown {
        match (&self.status, &self.placement, self.verdict) {
            (_, _, Some(TaskVerdict::Lost)) => Shown::Lost,
            (_, None, Some(TaskVerdict::Ended)) => Shown::Cancelled,
            (_, None, None) => Shown::Pending,
            (status, Some(_), _) => match status {
                Some(TaskStatus { ended: Some(Ended::Failing | Ended::GaveUp), .. }) => Shown::Failed,
                Some(TaskStatus { ended: Some(Ended::Stopped | Ended::Completed), .. }) => Shown::Exited,
                _ if node_is_down => Shown::Lost,
                None => Shown::Assigned,
                Some(TaskStatus { phase, .. }) => match phase {
                    Phase::Preparing => Shown::Preparing,
                    Phase::Created => Shown::Created,
                    Phase::Starting => Shown::Starting,
                    Phase::Running => Shown::Running,
                    Phase::Stopping => Shown::Stopping,
                    Phase::Exited => Shown::Restarting,
                },
            },
        }
    }
}

/// A task's phase as users see it: the agent's word, or control's where the agent has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    Pending,
    Assigned,
    Preparing,
    Created,
    Starting,
    Running,
    Stopping,
    /// It ended and waits for its next attempt.
    Restarting,
    Exited,
    Failed,
    /// Its node is down, so nobody knows.
    Lost,
    /// It was no longer wanted before it had a node.
    Cancelled,
}

impl Shown {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Preparing => "preparing",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Desired {
    /// Whether its container is to run.
    pub fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Yielding)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Yielding => "yielding",
            Self::Stopped => "stopped",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { signal, oom: true } => write!(f, "killed for its memory limit (signal {signal})"),
            Self::Signal { signal, oom: false } => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("ended unobserved"),
            Self::NotStarted => f.write_str("did not start"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(attempt: u32, phase: Phase, seq: u32, ended: Option<Ended>) -> TaskStatus {
        TaskStatus {
            attempt,
            phase,
            seq,
            ready: false,
            at: Timestamp(0),
            exit: None,
            ended,
            reason: None,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_later_attempt_supersedes_a_later_phase_and_the_end_supersedes_all() {
        let order = [
            status(1, Phase::Preparing, 0, None),
            status(1, Phase::Running, 0, None),
            status(1, Phase::Running, 1, None),
            status(1, Phase::Exited, 0, None),
            status(2, Phase::Preparing, 0, None),
            status(1, Phase::Exited, 0, Some(Ended::Stopped)),
        ];
        for (at, earlier) in order.iter().enumerate() {
            assert!(!earlier.supersedes(earlier), "a repeated report changes nothing");
            for later in &order[at + 1..] {
                assert!(later.supersedes(earlier) && !earlier.supersedes(later));
            }
        }
    }
}
