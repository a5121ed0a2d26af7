//! What an agent knows of its tasks beyond their statuses: what probes answered, and when the next attempt is due. It is kept
//! in memory, for whoever asks; nothing is decided by it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::{TaskId, Timestamp};

use crate::health::Standing;

/// Results of health checks that are kept of each task. As many as Docker keeps; with their output at most 20 KiB.
const RESULTS: usize = 5;

/// A handle on what is known of all tasks of this node.
// A std mutex: it is held for one operation on the map and never across an await.
#[derive(Clone, Debug, Default)]
pub struct Details(Arc<Mutex<BTreeMap<TaskId, TaskDetails>>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskDetails {
    /// `None` where nothing was checked yet.
    pub health: Option<HealthDetails>,
    pub readiness: Option<ReadinessDetails>,
    /// When the next attempt is due, while one waits for it.
    pub next_attempt: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthDetails {
    pub standing: Standing,
    /// Failures in a row, of those that count.
    pub failures: u32,
    /// The last results, oldest first; also those of attempts before this one.
    pub results: VecDeque<Checked>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessDetails {
    pub ready: bool,
    /// Results in a row that speak against that.
    pub against: u32,
    pub last: Checked,
}

/// What one probe came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub attempt: u32,
    /// When it began.
    pub at: Timestamp,
    pub took: Duration,
    pub healthy: bool,
    /// At most 4 KiB; whatever characters the container chose.
    pub output: String,
}

impl Details {
    /// What is known of a task; `None` if that is nothing.
    pub fn of(&self, task: TaskId) -> Option<TaskDetails> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&task).cloned()
    }

    fn note(&self, task: TaskId, note: impl FnOnce(&mut TaskDetails)) {
        note(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(task).or_default());
    }

    pub(crate) fn checked(&self, task: TaskId, standing: Standing, failures: u32, result: Checked) {
        self.note(task, |details| {
            let mut results = details.health.take().map(|health| health.results).unwrap_or_default();
            if results.len() >= RESULTS {
                results.pop_front();
            }
            results.push_back(result);
            details.health = Some(HealthDetails { standing, failures, results });
        });
    }

    pub(crate) fn asked(&self, task: TaskId, readiness: ReadinessDetails) {
        self.note(task, |details| details.readiness = Some(readiness));
    }

    /// The task rests until then.
    pub(crate) fn rests(&self, task: TaskId, until: Timestamp) {
        self.note(task, |details| (details.next_attempt, details.readiness) = (Some(until), None));
    }

    /// Another attempt is made.
    pub(crate) fn begins(&self, task: TaskId) {
        self.amend(task, |details| {
            details.next_attempt = None;
            details.readiness = None;
            if let Some(health) = &mut details.health {
                (health.standing, health.failures) = (Standing::Starting, 0);
            }
        });
    }

    /// There will be no further attempt.
    pub(crate) fn ends(&self, task: TaskId) {
        self.amend(task, |details| (details.next_attempt, details.readiness) = (None, None));
    }

    /// Changes what is known, if anything is.
    fn amend(&self, task: TaskId, amend: impl FnOnce(&mut TaskDetails)) {
        if let Some(details) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&task) {
            amend(details);
        }
    }

    pub(crate) fn forget(&self, task: TaskId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
    }
}

#[cfg(test)]
mod tests {
    use model::ServiceId;

    use super::*;

    #[test]
    fn the_last_results_are_kept_and_no_more() {
        let (details, task) = (Details::default(), TaskId { service: ServiceId(1), slot: 1, sequence: 1 });
        assert_eq!(details.of(task), None);
        for at in 0..9 {
            let output = String::new();
            let result =
                Checked { attempt: 1, at: Timestamp(at), took: Duration::ZERO, healthy: true, output };
            details.checked(task, Standing::Healthy, 0, result);
        }
        let health = details.of(task).unwrap().health.unwrap();
        let kept: Vec<u64> = health.results.iter().map(|result| result.at.0).collect();
        assert_eq!(kept, [4, 5, 6, 7, 8]);

        details.rests(task, Timestamp(9));
        assert_eq!(details.of(task).unwrap().next_attempt, Some(Timestamp(9)));
        details.begins(task);
        let expected = HealthDetails { standing: Standing::Starting, ..health };
        let known = details.of(task).unwrap();
        assert_eq!((known.next_attempt, known.health), (None, Some(expected)));
        details.forget(task);
        assert_eq!(details.of(task), None);
    }
}
