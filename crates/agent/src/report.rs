//! What is said to the managers, until it is heard. The latest status of a task is all that counts.

use std::collections::{BTreeMap, BTreeSet};

use model::{Digest, TaskId, TaskStatus};
use wire::proto::agent::{HeldImages, Report};

use crate::staff::News;
use crate::task::Said;

/// Statuses in three piles: all that were ever said, those on their way, and those that wait behind them.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    latest: BTreeMap<TaskId, TaskStatus>,
    images: Vec<Digest>,
    waiting: BTreeSet<TaskId>,
    images_wait: bool,
    /// The number of the report that has not been acknowledged yet.
    in_flight: Option<u64>,
    last_number: u64,
}

impl Reports {
    pub(crate) fn hear(&mut self, news: News) {
        match news {
            News::Said(Said { task, status }) => self.status(task, status),
            News::Over(task) => self.forget(task),
        }
    }

    pub(crate) fn status(&mut self, task: TaskId, status: TaskStatus) {
        self.latest.insert(task, status);
        self.waiting.insert(task);
    }

    /// Whether nothing of the task will run any more.
    pub(crate) fn is_over(&self, task: TaskId) -> bool {
        self.latest.get(&task).is_some_and(|status| status.ended.is_some())
    }

    pub(crate) fn images(&mut self, held: Vec<Digest>) {
        self.images = held;
        self.images_wait = true;
    }

    pub(crate) fn forget(&mut self, task: TaskId) {
        self.latest.remove(&task);
        self.waiting.remove(&task);
    }

    /// A new session is told everything again.
    pub(crate) fn begin_session(&mut self) {
        self.in_flight = None;
        self.waiting = self.latest.keys().copied().collect();
        self.images_wait = true;
    }

    pub(crate) fn received(&mut self, number: u64) {
        if self.in_flight.is_some_and(|sent| sent <= number) {
            self.in_flight = None;
        }
    }

    /// The next report, if there is anything to say and nothing on its way. What is said meanwhile goes into the one
    /// after it, so that a slow manager is sent fewer reports and not more.
    pub(crate) fn next(&mut self) -> Option<Report> {
        if self.in_flight.is_some() || (self.waiting.is_empty() && !self.images_wait) {
            return None;
        }
        self.last_number += 1;
        self.in_flight = Some(self.last_number);
        let tasks = std::mem::take(&mut self.waiting);
        let tasks =
            tasks.into_iter().filter_map(|id| self.latest.get(&id).map(|status| (id, status.clone()).into()));
        let tasks = tasks.collect();
        let images = std::mem::take(&mut self.images_wait)
            .then(|| HeldImages { digests: self.images.iter().map(Digest::to_string).collect() });
        Some(Report { number: self.last_number, tasks, images })
    }
}
