//! Services that run to completion: what is declared of one, and the record of each of its runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::{Generation, Schedule, SpecVersion, Timestamp};

/// What makes a service a job: each of its slots is to succeed once a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// How many slots are tried at once; `None` is all of them.
    pub parallelism: Option<u32>,
    /// A run that takes longer has failed.
    pub deadline: Option<Duration>,
    /// How many runs that are over are kept, with their tasks and logs.
    pub history: u32,
    /// When it is done by itself; without one, when it is deployed.
    pub schedule: Option<Schedule>,
}

impl JobSpec {
    /// Enough to see whether it is always the same that goes wrong.
    pub const HISTORY: u32 = 5;
    /// Each run keeps up to five tasks a slot, as rows and as files on nodes.
    pub const MAX_HISTORY: u32 = 100;
}

impl Default for JobSpec {
    fn default() -> Self {
        Self { parallelism: None, deadline: None, history: Self::HISTORY, schedule: None }
    }
}

/// A job's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// The number of the latest; they count from 1.
    pub last: u32,
    /// Those that go on, and the latest of those that are over.
    pub runs: BTreeMap<u32, Run>,
    /// Of its schedule, times up to this one have been seen to.
    pub considered: Timestamp,
    /// The latest time of its schedule at which nothing was begun.
    pub skipped: Option<Skipped>,
}

/// A time at which a job was due, and was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub at: Timestamp,
    pub why: SkipReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// The run before it still went on.
    Overlap,
    /// No manager led at the time.
    Missed,
}

/// One time that a job is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub version: SpecVersion,
    pub cause: RunCause,
    /// Who wanted it; `None` where that is not known.
    pub by: Option<String>,
    pub began: Timestamp,
    /// Of the change that began it.
    pub generation: Generation,
    /// `None` while it goes on.
    pub end: Option<RunEnd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunCause {
    /// It is new, or was changed.
    Deploy,
    /// Somebody asked for it.
    Asked,
    /// Its schedule names this time.
    Schedule(Timestamp),
}

/// How a run ended. It is recorded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    pub at: Timestamp,
    /// Slots that succeeded.
    pub done: u32,
    pub how: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every slot did.
    Succeeded,
    Failed {
        /// For a person.
        reason: String,
    },
    /// Somebody ended it, or another took its place.
    Stopped { reason: String },
}

impl Job {
    /// The most runs that go on at once, of a job that lets them overlap: each has rows of its own.
    pub const MOST_AT_ONCE: usize = 100;

    /// The latest run, with its number.
    pub fn latest(&self) -> Option<(u32, &Run)> {
        self.runs.last_key_value().map(|(number, run)| (*number, run))
    }

    /// Runs that go on.
    pub fn active(&self) -> impl Iterator<Item = (u32, &Run)> {
        self.runs.iter().filter(|(_, run)| run.end.is_none()).map(|(number, run)| (*number, run))
    }

    /// Forgets the oldest runs that are over, but for the `kept` latest of them. The last one of all stays.
    pub fn forget(&mut self, kept: u32) {
        let over: Vec<u32> =
            self.runs.iter().filter(|(_, run)| run.end.is_some()).map(|(number, _)| *number).collect();
        let too_many = over.len().saturating_sub(usize::try_from(kept.max(1)).unwrap_or(usize::MAX));
        for number in over.into_iter().take(too_many) {
            self.runs.remove(&number);
        }
    }

    /// The run of that number, if it goes on.
    pub fn goes_on(&self, number: u32) -> Option<&Run> {
        self.runs.get(&number).filter(|run| run.end.is_none())
    }
}

impl SkipReason {
    /// For a person, about the time that was skipped.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "the run before it still went on",
            Self::Missed => "no manager led at the time",
        }
    }
}

impl RunCause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Asked => "asked",
            Self::Schedule(_) => "schedule",
        }
    }
}

impl Run {
    /// The one word for where it stands that users see.
    pub fn status(&self) -> &'static str {
        match self.end.as_ref().map(|end| &end.how) {
            None => "running",
            Some(Ending::Succeeded) => "succeeded",
            Some(Ending::Failed { .. }) => "failed",
            Some(Ending::Stopped { .. }) => "stopped",
        }
    }

    /// Why it ended as it did.
    pub fn reason(&self) -> Option<&str> {
        match self.end.as_ref().map(|end| &end.how) {
            None | Some(Ending::Succeeded) => None,
            Some(Ending::Failed { reason } | Ending::Stopped { reason }) => Some(reason),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
            Self::Stopped { reason } => write!(f, "stopped: {reason}"),
        }
    }
}
